"""agentflow engine: the model server that agentflow.yaml asks for."""

import asyncio
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from agentflow.cli import house
from agentflow.cli.terminal import err, out
from agentflow.engines.launcher.command import Command
from agentflow.engines.launcher.supervisor import Supervisor
from agentflow.errors import StartError
from agentflow.wiring import Place
from agentflow.wiring.launch import launch, listens_wide

Config = Annotated[Path | None, typer.Option("--config", "-c", help="The file; default ./agentflow.yaml.")]
Python = Annotated[
    str | None, typer.Option("--python", help="Interpreter of the environment that holds vLLM or SGLang.")
]
Preload = Annotated[
    bool, typer.Option("--preload", help="Name warm adapters on the command line: for servers nobody drives.")
]
More = Annotated[list[str] | None, typer.Argument(help="After --: further arguments of the engine.")]

engine_app = typer.Typer(help="The model server: print its command, or run it.", no_args_is_help=True)


@engine_app.command()
def args(config: Config = None, python: Python = None, preload: Preload = False, more: More = None) -> None:
    """Print the command that starts the engine's server."""
    place = house.place(config)
    out.print(shown(_command(place, python, preload, more)), markup=False, highlight=False, soft_wrap=True)


@engine_app.command()
def start(config: Config = None, python: Python = None, preload: Preload = False, more: More = None) -> None:
    """Run the engine's server until Ctrl-C; start it again when it dies."""
    place = house.place(config)
    command = _command(place, python, preload, more)
    if python is None and find_spec(place.settings.model.engine) is None:
        raise StartError(
            f"{place.settings.model.engine} is not installed beside agentflow: pip install 'agentflow[vllm]', or name "
            "the interpreter of its environment: --python PATH."
        )
    asyncio.run(_run(Supervisor(command, place.settings.model.url, place.environment.variables, _say)))


def shown(command: Command) -> str:
    """The command for a shell, its secrets left out."""
    env = [f"{name}={_quoted(value, name, command)}" for name, value in command.env.items()]
    before = ("", *command.args)
    args = [_quoted(word, previous, command) for previous, word in zip(before, command.args, strict=False)]
    return " ".join([*env, *args])


def _quoted(value: str, name: str, command: Command) -> str:
    return "..." if name in command.secret else shlex.quote(value)


def _command(place: Place, python: str | None, preload: bool, more: list[str] | None) -> Command:
    if listens_wide(place):
        err.print(
            f"[yellow]warning[/] {place.settings.model.url} is no loopback address: the engine's key guards paths "
            "under /v1 only, and whoever reaches the others can load adapters. Keep it on a private network.",
            soft_wrap=True,
        )
    return launch(place, python=python or sys.executable, preload=preload, more=more or ())


async def _run(supervisor: Supervisor) -> None:
    stop = asyncio.Event()
    signalled = asyncio.create_task(house.until_signal())
    signalled.add_done_callback(lambda _: stop.set())
    try:
        await supervisor.run(stop)
    finally:
        signalled.cancel()


def _say(line: str) -> None:
    err.print(line, markup=False, soft_wrap=True)
