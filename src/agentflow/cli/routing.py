"""Commands about roles and how messages find them: route, routes evaluate | suggest | tune | review."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from agentflow.cli import explained, house
from agentflow.cli.terminal import out, steps
from agentflow.errors import ConfigError
from agentflow.routing import curate, matrix
from agentflow.routing.classifier import Classifier
from agentflow.routing.intents import Intents
from agentflow.routing.report import Report, evaluate_left_out, parsed
from agentflow.routing.report import as_json as plain
from agentflow.routing.report import evaluate as evaluated
from agentflow.turn import Json
from agentflow.wiring import Place, routing_only

routes_app = typer.Typer(help="How well messages find their roles, and how to help.", no_args_is_help=True)
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The file; default ./agentflow.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def route(
    text: Annotated[str, typer.Argument(help="What the user would say.")],
    config: Config = None,
    thread: Annotated[str | None, typer.Option(help="As the next message of this conversation.")] = None,
    role: Annotated[str | None, typer.Option(help="As if this role had been asked for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show which role a message would get, and why; nothing is answered or stored."""
    found = asyncio.run(_routed(house.place(config), {"input": text, "role": role, "thread_id": thread}))
    if as_json:
        out.print_json(json.dumps(found))
        return
    explained.decision(found)


@routes_app.command()
def evaluate(
    file: Annotated[Path | None, typer.Argument(help='Lines of {"text": ..., "role": ...}.')] = None,
    config: Config = None,
    picture: Annotated[Path | None, typer.Option(help="Write the confusion matrix here, as SVG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure on labelled messages; without a file on the examples, each left out in turn."""
    report = asyncio.run(_report(house.place(config), file))
    if picture is not None:
        picture.write_text(matrix.picture(report), encoding="utf-8")
    if as_json:
        out.print_json(json.dumps(plain(report)))
        return
    explained.report(report)
    if picture is not None:
        out.print(f"the picture is in {picture}", markup=False)


@routes_app.command()
def suggest(config: Config = None) -> None:
    """Say what is wrong with the examples: repeated, contradictory, too few, too near another role's."""
    findings = asyncio.run(_findings(house.place(config)))
    explained.findings(findings)


@routes_app.command()
def tune(config: Config = None) -> None:
    """Show what other values of reject_rate and ask_rate would mean, on left-out examples."""
    fitted = asyncio.run(_examined(house.place(config)))
    limits, margins = curate.tune(fitted), curate.tune_margin(fitted)
    if not limits:
        raise ConfigError("There are too few examples to tune on; give every role at least two.")
    explained.limits(limits)
    explained.margins(margins)
    out.print("write the rates under router: in agentflow.yaml, as reject_rate and ask_rate", markup=False)


@routes_app.command()
def review(
    config: Config = None,
    accept: Annotated[list[int] | None, typer.Option(help="Feedback that becomes an example.")] = None,
    reject: Annotated[list[int] | None, typer.Option(help="Feedback that does not.")] = None,
) -> None:
    """List the feedback that waits, or accept and reject it by number."""
    asyncio.run(_reviewed(house.place(config), accept or [], reject or []))


# --- work ----------------------------------------------------------------------------------


async def _routed(place: Place, body: Json) -> Json:
    async with AsyncExitStack() as stack:
        with steps("starting") as progress:
            client = await stack.enter_async_context(house.any_door(place, progress=progress))
        return await house.ask(client, "POST", "/route", body)


async def _report(place: Place, file: Path | None) -> Report:
    async with _opened(place) as intents:
        fitted = await intents.examined()
        if file is None:
            report = evaluate_left_out(fitted)
            if report is None:
                raise ConfigError("There are too few examples to leave any out; name a file of messages.")
            return report
        labelled = parsed(await asyncio.to_thread(_text, file), fitted.roles, name=str(file))
        return evaluated(fitted, labelled, await intents.vectors([one.text for one in labelled]))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}.", field="file", value=str(file)) from error


async def _findings(place: Place) -> list[curate.Finding]:
    async with _opened(place) as intents:
        return curate.inspect(intents.roles, await intents.examined())


async def _examined(place: Place) -> Classifier:
    async with _opened(place) as intents:
        return await intents.examined()


@asynccontextmanager
async def _opened(place: Place) -> AsyncIterator[Intents]:
    """The classifier alone, with the lessons of the agentflow that listens, if one does."""
    lessons = await house.lessons(place)
    async with AsyncExitStack() as stack:
        with steps("reading examples") as progress:
            intents = await stack.enter_async_context(routing_only(place, lessons, progress=progress))
        yield intents


async def _reviewed(place: Place, accept: Sequence[int], reject: Sequence[int]) -> None:
    async with AsyncExitStack() as stack:
        with steps("starting") as progress:
            client = await stack.enter_async_context(house.any_door(place, progress=progress))
        for numbers, accepted in ((accept, True), (reject, False)):
            for number in numbers:
                told = await house.ask(client, "POST", f"/feedback/{number}", {"accept": accepted})
                out.print(f"{number} is {told['status']}: {told['text'][:70]!r}", markup=False)
        if not accept and not reject:
            explained.waiting((await house.ask(client, "GET", "/feedback"))["feedback"])
