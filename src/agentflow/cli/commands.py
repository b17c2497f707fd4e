"""The commands. What only one of them needs is imported when it runs: others start in a third of the time."""

import asyncio
import socket
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from agentflow import __version__, telemetry
from agentflow.cli import house
from agentflow.cli.later import later
from agentflow.cli.port import listening, widened
from agentflow.cli.terminal import Screen, err, out, steps
from agentflow.ending import leave
from agentflow.errors import AgentflowError, ConfigError
from agentflow.prompt import Json
from agentflow.settings import extra_role, inspect, read_environment
from agentflow.settings.document import read as read_document
from agentflow.settings.published import schema_text
from agentflow.wiring import Place

app = typer.Typer(
    name="agentflow",
    help="One base model, many minds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="agentflow.yaml: check it, or print its schema.", no_args_is_help=True)
app.add_typer(config_app, name="config")
for name, where, about in (
    ("adapters", "adapters:adapters_app", "Adapters: where they are, and whether their files are good."),
    ("engine", "engine:engine_app", "The model server: print its command, or run it."),
    ("keys", "keys:keys_app", "API keys: make, list, rotate, disable."),
    ("doctor", "doctor:doctor", "Look at everything agentflow needs; say what would fail and what to do."),
    ("plan", "plan:plan", "What fits, what moves and what it takes."),
    (
        "route",
        "routing:route",
        "Show which role a message would get, and why; nothing is answered or stored.",
    ),
    ("routes", "routing:routes_app", "How well messages find their roles, and how to help."),
    ("memory", "memory:memory_app", "What agentflow remembers: look, change, take along, forget."),
):
    later(app, name, f"agentflow.cli.{where}", help=about)

Config = Annotated[Path | None, typer.Option("--config", "-c", help="The file; default ./agentflow.yaml.")]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def everywhere(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Set up logging for every command."""
    telemetry.configure(readable=err.is_terminal, level="info" if verbose else "warning")


@app.command()
def demo() -> None:
    """Watch a scripted conversation on embedded parts: nothing is needed, nothing is left behind."""
    from agentflow.cli.demo import play

    asyncio.run(play(read_environment()))


@app.command()
def serve(  # noqa: PLR0913, PLR0917 - one parameter per option
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Listen here instead of server.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Listen here instead of server.port.")] = None,
    fake: Annotated[
        bool, typer.Option("--fake", help="Use the stand-in engine: no model is needed.")
    ] = False,
    graphs: Annotated[
        Path | None, typer.Option(help="A langgraph.json: its graphs are served beside ours.")
    ] = None,
    studio: Annotated[bool, typer.Option("--studio", help="Let LangGraph Studio's page in.")] = False,
    role: Annotated[
        list[str] | None, typer.Option("--role", help="Add a role: NAME=ADAPTER or NAME=ADAPTER@RAM.")
    ] = None,
    workers: Annotated[
        int,
        typer.Option(min=1, max=64, help="Processes on one address; the engine is then a server of its own."),
    ] = 1,
    inherited: Annotated[int | None, typer.Option("--socket", hidden=True)] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    telemetry.configure(readable=err.is_terminal, level="info")
    changed = _changed(house.place(config), host, port, fake=fake, studio=studio)
    place = replace(_with_roles(changed, role or ()), graphs=graphs)
    if workers == 1:
        _run(_serve(place, inherited))
        return
    given = {"--config": config, "--graphs": graphs, "--host": host, "--port": port}
    arguments = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    arguments += [*(["--fake"] if fake else []), *(["--studio"] if studio else [])]
    arguments += [part for one in role or () for part in ("--role", one)]
    asyncio.run(_serve_many(place, arguments, workers))


@app.command()
def chat(
    config: Config = None,
    role: Annotated[str | None, typer.Option(help="Always this role.")] = None,
) -> None:
    """Talk in the terminal; an empty line ends it."""
    asyncio.run(_chat(house.place(config), role))


@app.command()
def invoke(
    text: Annotated[str, typer.Argument(help="What you say.")],
    config: Config = None,
    role: Annotated[str | None, typer.Option(help="This role.")] = None,
    thread: Annotated[str | None, typer.Option(help="Continue this conversation.")] = None,
) -> None:
    """Run one turn and print the answer."""
    asyncio.run(_invoke(house.place(config), {"input": text, "role": role, "thread_id": thread}))


@app.command()
def migrate(config: Config = None) -> None:
    """Bring the database to this version's schema."""
    from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
    from agentflow.records.migrate import migrate as bring_up_to_date

    postgres = house.place(config).settings.postgres
    if postgres.url is not None:
        out.print(f"database is at {bring_up_to_date(postgres.url.get_secret_value())}")
        return
    options = EmbeddedOptions(postgres.data, postgres.bin_dir, postgres.start_timeout, postgres.run_as)
    with steps("starting Postgres") as progress:
        server = EmbeddedPostgres(options, progress=progress)
        try:
            at = bring_up_to_date(server.start())
        finally:
            server.stop()
    out.print(f"database in {postgres.data} is at {at}")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("agentflow.yaml"),
) -> None:
    """Write an agentflow.yaml to start from; an existing file stays as it is."""
    if file.exists():
        raise ConfigError(
            f"{file} exists and stays as it is; name another file.", field="file", value=str(file)
        )
    example = resources.files("agentflow.settings") / "agentflow.example.yaml"
    file.write_text(example.read_text(encoding="utf-8"), encoding="utf-8")
    out.print(f"{file} is written; next: agentflow config check, then agentflow serve")


@config_app.command()
def check(config: Config = None) -> None:
    """Explain every mistake with its line, its field, its value and the way out."""
    from agentflow.wiring import adapter_findings, routing_findings

    environment = read_environment()
    file = config or environment.config
    document = read_document(file)
    settings, findings = inspect(document, environment, folder=file.resolve().parent)
    if settings is not None:
        place = Place(settings, environment, file.resolve().parent)
        findings += [*adapter_findings(place, document), *routing_findings(place, document)]
    for finding in sorted(findings, key=lambda one: one.line):
        mark = "[red]mistake[/]" if finding.serious else "[yellow]warning[/]"
        out.print(f"{mark}  ", end="")
        out.print(str(finding), markup=False, soft_wrap=True)
    mistakes = sum(finding.serious for finding in findings)
    if mistakes:
        raise ConfigError(f"{file} has {mistakes} mistake{'s' if mistakes > 1 else ''}.")
    out.print(f"{file} is fine: {len(settings.roles) if settings else 0} roles")


@config_app.command()
def schema() -> None:
    """Print the JSON Schema of agentflow.yaml, for editors."""
    out.print(schema_text(), markup=False, soft_wrap=True, end="")


def _changed(place: Place, host: str | None, port: int | None, *, fake: bool, studio: bool) -> Place:
    server: Json = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    if studio:
        from agentflow.api.origins import STUDIO

        server["origins"] = (*place.settings.server.origins, STUDIO)
    settings = place.settings.model_copy(update={"server": place.settings.server.model_copy(update=server)})
    if fake:
        settings = settings.model_copy(
            update={"model": settings.model.model_copy(update={"engine": "double"})}
        )
    return replace(place, settings=settings)


def _with_roles(place: Place, written: Sequence[str]) -> Place:
    """The configuration with the roles of the command line, which stay when the file is read again."""
    extra = dict(extra_role(one, Path.cwd()) for one in written)
    settings = place.settings.model_copy(update={"roles": {**place.settings.roles, **extra}})
    return replace(place, settings=settings, extra_roles=extra)


def _run(serving: Coroutine[Any, Any, None]) -> None:
    """Over an event loop in C, where there is one for this system."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


async def _serve_many(place: Place, arguments: list[str], workers: int) -> None:
    if place.settings.model.engine == "local":
        raise ConfigError(
            "model.engine: local lives in one process, so --workers 1 is all it takes; use a server such as vLLM.",
            field="model.engine",
            value="local",
        )
    from agentflow.cli import fleet

    with steps("starting") as progress:
        await fleet.serve(place, arguments, workers, progress)


async def _serve(place: Place, inherited: int | None = None) -> None:
    telemetry.configure(readable=err.is_terminal, level="info", content=place.settings.telemetry.content)
    from agentflow.cli.door import door, settled

    stop = house.starting(child=inherited is not None)
    widened()
    taken = listening(place.settings.server) if inherited is None else socket.socket(fileno=inherited)
    async with AsyncExitStack() as stack:
        with steps("starting") as progress:
            address = await stack.enter_async_context(door(place, progress=progress, on=taken))
        settled()
        out.print(f"agentflow listens on {address} · {address}/docs · Ctrl-C ends it", soft_wrap=True)
        await house.until_signal(stop, child=inherited is not None)
    leave()  # everything is closed; what other people's code still does is not waited for


async def _chat(place: Place, role: str | None) -> None:
    async with AsyncExitStack() as stack:
        with steps("starting") as progress:
            client = await stack.enter_async_context(house.any_door(place, progress=progress))
        thread: str | None = None
        screen = Screen()
        while text := (await asyncio.to_thread(_asked)).strip():
            async for event in house.turn(client, {"input": text, "role": role, "thread_id": thread}):
                screen.show(event)
                thread = event.get("thread_id", thread)


async def _invoke(place: Place, body: Json) -> None:
    async with AsyncExitStack() as stack:
        with steps("starting") as progress:
            client = await stack.enter_async_context(house.any_door(place, progress=progress))
        async for event in house.turn(client, body):
            if event["event"] == "error":
                raise AgentflowError(event["message"])
            if event["event"] in ("token", "done"):
                out.print(event.get("text", "\n"), end="", markup=False, soft_wrap=True)


def _asked() -> str:
    try:
        return out.input("[bold]you[/] ")
    except EOFError:
        return ""
