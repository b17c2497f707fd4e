"""agentflow adapters: what is known of adapter files."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from agentflow.adapters import BaseShape
from agentflow.adapters.report import Expected, Row, examine
from agentflow.cli import house
from agentflow.cli.explained import residency_table
from agentflow.cli.terminal import out
from agentflow.errors import InvalidAdapter
from agentflow.residency.roster import located
from agentflow.settings import Settings, read_environment
from agentflow.wiring import Place
from agentflow.wiring.place import base_shape

Config = Annotated[Path | None, typer.Option("--config", "-c", help="The file; default ./agentflow.yaml.")]

adapters_app = typer.Typer(help="Adapters: where they are, and whether their files are good.")
_MARKS = {
    "ok": "[green]ok[/]",
    "warning": "[yellow]warning[/]",
    "mistake": "[red]mistake[/]",
    "unknown": "[dim]?[/]",
}


@adapters_app.callback(invoke_without_command=True)
def everywhere(
    context: typer.Context,
    config: Config = None,
    once: Annotated[bool, typer.Option(help="Print the table once, also on a terminal.")] = False,
) -> None:
    """Where every adapter of the running agentflow is, who holds it, and what happens next; live on a terminal."""
    if context.invoked_subcommand is None:
        asyncio.run(_watched(house.place(config), live=out.is_terminal and not once))


async def _watched(place: Place, *, live: bool) -> None:
    async with house.listening_door(place) as client:
        found = await house.ask(client, "GET", "/residency")
        if not live:
            out.print(residency_table(found))
            return
        with Live(residency_table(found), console=out, refresh_per_second=4) as screen:
            while True:
                await asyncio.sleep(1)
                screen.update(residency_table(await house.ask(client, "GET", "/residency")))


@adapters_app.command()
def check(
    adapters: Annotated[
        list[str] | None, typer.Argument(help="Folders or tiny:NAME; none: every role's.")
    ] = None,
    config: Config = None,
    base: Annotated[
        Path | None, typer.Option(help="Folder of the base model, instead of model.base.")
    ] = None,
    max_rank: Annotated[int | None, typer.Option(help="Instead of model.max_rank.")] = None,
) -> None:
    """Everything that validation knows of adapter folders, in a table; nothing is loaded, no pickle is opened."""
    place = _place(config)
    shape = BaseShape.read(base) if base else base_shape(place)
    expected = Expected(
        base=shape,
        base_name=str(base or _base_name(place)),
        max_rank=max_rank or place.settings.model.max_rank,
        roots=place.settings.model.roots,
    )
    wanted = [(one, one) for one in adapters or ()] or [
        (f"{name} = {role.lora_path}", role.lora_path)
        for name, role in place.settings.roles.items()
        if role.lora_path is not None
    ]
    # What is named on the command line lies where the shell stands, what the file names lies beside the file.
    folder = Path.cwd() if adapters else place.folder
    bad = sum(_told(title, path, folder, expected) for title, path in wanted)
    if bad:
        raise InvalidAdapter(f"{bad} of {len(wanted)} adapters cannot be used.")


def _told(title: str, path: str, folder: Path, expected: Expected) -> bool:
    """Print one adapter's table; True if it has a mistake."""
    shipped = path.startswith("tiny:")
    rows = examine(
        located(path, folder, field="lora_path"), replace(expected, roots=()) if shipped else expected
    )
    grid = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, padding=(0, 2))
    for heading in ("", "", ""):
        grid.add_column(heading, overflow="fold")
    for row in rows:
        grid.add_row(*_cells(row))
    out.print(grid)
    return any(row.verdict == "mistake" for row in rows)


def _cells(row: Row) -> tuple[str, str, str]:
    return _MARKS[row.verdict], row.what, escape(row.found)


def _base_name(place: Place) -> str:
    name = place.settings.model.base
    return "agentflow-tiny" if name == "tiny" else name


def _place(config: Path | None) -> Place:
    """The configuration; without any file its defaults, since adapters can be looked at without one."""
    environment = read_environment()
    if config is None and not environment.config.exists():
        return Place(Settings(), environment, Path.cwd())
    return house.place(config, environment)
