"""memory edit | pin | hide | expire | forget | receipts"""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from agentflow.cli.memory.asking import AsJson, Config, Number, ask, counted, line, memory_app
from agentflow.cli.terminal import out
from agentflow.errors import BadInput
from agentflow.settings.values import seconds
from agentflow.turn import Json


@memory_app.command()
def edit(
    number: Number,
    content: Annotated[str, typer.Argument(help="The new wording.")],
    config: Config = None,
) -> None:
    """Reword a memory; the former wording is kept in its history."""
    line(ask(config, "PATCH", f"/memory/{number}", body={"content": content}))


@memory_app.command()
def pin(
    number: Number,
    config: Config = None,
    off: Annotated[bool, typer.Option("--off", help="Take the pin away.")] = False,
) -> None:
    """Offer it to every prompt, and let it never expire."""
    line(ask(config, "PATCH", f"/memory/{number}", body={"pinned": not off}))


@memory_app.command()
def hide(
    number: Number,
    config: Config = None,
    off: Annotated[bool, typer.Option("--off", help="Let it be found again.")] = False,
) -> None:
    """Keep it, but let nothing find it."""
    line(ask(config, "PATCH", f"/memory/{number}", body={"hidden": not off}))


@memory_app.command()
def expire(
    number: Number,
    after: Annotated[str, typer.Argument(help="A time from now such as 30d or 12h, or never.")],
    config: Config = None,
) -> None:
    """Forget it by itself after a time."""
    line(ask(config, "PATCH", f"/memory/{number}", body={"expires_at": _moment(after)}))


@memory_app.command()
def forget(  # noqa: PLR0913, PLR0917 - one option per way to choose
    numbers: Annotated[list[int] | None, typer.Argument(help="These memories.")] = None,
    config: Config = None,
    thread: Annotated[str | None, typer.Option(help="A conversation, with its messages.")] = None,
    document: Annotated[
        int | None, typer.Option(help="A document, by its number in `memory documents`.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Every memory that holds this.")] = None,
    collection: Annotated[str | None, typer.Option(help="All of yours in a collection.")] = None,
    everything: Annotated[
        str | None, typer.Option(help="user: all of yours, API keys too; tenant: everybody's.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget for real; shows what would go and asks, then prints the receipt."""
    given: Json = {
        "ids": numbers or None, "thread_id": thread, "document": document, "text": text,
        "collection": collection, "everything": everything,
    }  # fmt: skip
    body = {key: value for key, value in given.items() if value is not None}
    if len(body) != 1:
        raise BadInput(
            "Say what to forget, in one way: numbers of memories, --thread, --document, --text, --collection, or "
            "--everything user.",
            field="forget",
        )
    if not yes:
        preview = ask(config, "POST", "/memory/forget", body={**body, "preview": True})
        if not any(preview["counts"].values()):
            out.print("there is nothing to forget")
            return
        out.print(f"would forget {counted(preview['counts'])}")
        typer.confirm("forget it for good?", abort=True)
    receipt = ask(config, "POST", "/memory/forget", body=body)
    if as_json:
        out.print_json(json.dumps(receipt))
        return
    out.print(f"forgotten: {counted(receipt['counts'])}; receipt {receipt['receipt']} is {receipt['status']}")


@memory_app.command()
def receipts(config: Config = None) -> None:
    """List what was forgotten, in numbers."""
    found = ask(config, "GET", "/memory/receipts")["receipts"]
    if not found:
        out.print("nothing was forgotten yet")
    for one in found:
        out.print(
            f"{one['at']}  {one['status']:<8} by {one['by']}: {counted(one['counts'])}  {one['receipt']}"
        )


def _moment(after: str) -> str | None:
    if after == "never":
        return None
    try:
        return (datetime.now(UTC) + timedelta(seconds=float(seconds(after)))).isoformat()
    except ValueError as error:
        raise BadInput(f"{error}; or never.", field="after", value=after) from error
