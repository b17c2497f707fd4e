"""memory list | search | show | stats"""

from typing import Annotated

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table as RichTable

from agentflow.cli.memory.asking import (
    AsJson,
    Collection,
    Config,
    Number,
    ask,
    line,
    memory_app,
    printed,
    short,
)
from agentflow.cli.terminal import out
from agentflow.turn import Json


@memory_app.command("list")
def listed(  # noqa: PLR0913, PLR0917 - one option per way to narrow
    config: Config = None,
    text: Annotated[str | None, typer.Option(help="Only those that hold this text.")] = None,
    collection: Collection = None,
    role: Annotated[str | None, typer.Option(help="Only what this role said, heard or was given.")] = None,
    thread: Annotated[str | None, typer.Option(help="Only those of this conversation.")] = None,
    before: Annotated[int | None, typer.Option(help="Older than this one.")] = None,
    limit: Annotated[int, typer.Option(help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show memories, newest first; a private role's too."""
    query = {
        "text": text, "collection": collection, "role": role, "thread_id": thread, "before": before, "limit": limit,
    }  # fmt: skip
    found = ask(config, "GET", "/memory", query=query)
    if printed(found, as_json=as_json):
        return
    for one in found["memories"]:
        line(one)
    if not found["memories"]:
        narrowed = any(value is not None for key, value in query.items() if key != "limit")
        out.print("no memory fits" if narrowed else "nothing is remembered yet")
    if found["next"]:
        out.print(f"[dim]older ones: --before {found['next']}[/]")


@memory_app.command()
def search(
    question: Annotated[str, typer.Argument(help="As a user would ask.")],
    config: Config = None,
    collection: Collection = None,
    role: Annotated[
        str | None, typer.Option(help="As a turn of this role; else in everything of yours.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="How many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Search as a turn does; shows why each is found, and whether a turn would show it."""
    query = {"q": question, "collection": collection, "role": role, "k": k}
    found = ask(config, "GET", "/memory/search", query=query)
    if printed(found, as_json=as_json):
        return
    if found["memory"] == "degraded":
        out.print("[yellow]by words only: the embedder or a place of vectors is down or slow[/]")
    for one in found["memories"]:
        _why(one)
    if not found["memories"]:
        out.print("nothing is found")


def _why(one: Json) -> None:
    why = one["why"]
    mark = "[green]recalled[/]" if one["recalled"] else "[dim]too weak[/]"
    whose = f" [dim]only for {escape(one['only_role'])}[/]" if one.get("only_role") else ""
    out.print(f"{one['id']:>8}  {one['score']:.2f} {mark}{whose}  ", end="")
    page = (one.get("cited") or {}).get("page")
    source = f"{one['speaker']}, page {page}" if page else one["speaker"]
    out.print(f"{source}: {short(one['content'])}", markup=False, soft_wrap=True)
    cosine = "none" if why["cosine"] is None else f"{why['cosine']:.2f}"
    words = escape(", ".join(why["matched"])) or "none"
    out.print(f"          [dim]words {why['bm25']:.1f} ({words}) · meaning {cosine} · neighbours "
              f"{why['neighbours']:.1f} · session {why['session']:.1f}[/]", soft_wrap=True)  # fmt: skip


@memory_app.command()
def show(number: Number, config: Config = None, as_json: AsJson = False) -> None:
    """Show one memory with its earlier wordings."""
    found = ask(config, "GET", f"/memory/{number}")
    if printed(found, as_json=as_json):
        return
    for key, value in found.items():
        if value not in (None, [], False, "") and key != "history":
            out.print(f"{key:>12}  {_plain(value)}", markup=False, soft_wrap=True)
    for former in found["history"]:
        out.print(f"{'until ' + former['until'][:10]:>16}  {former['content']}", markup=False, soft_wrap=True)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "yes" if value is True else str(value)


@memory_app.command()
def stats(config: Config = None, as_json: AsJson = False) -> None:
    """Show how much is remembered: items and bytes, vectors owed, the oldest."""
    found = ask(config, "GET", "/memory/stats")
    if printed(found, as_json=as_json):
        return
    if not found["collections"]:
        out.print("nothing is remembered yet")
    else:
        _collections(found["collections"])
    owed = found["owed"]
    if owed["vectors"]:
        reason = f", last refusal: {owed['last_error']}" if owed["last_error"] else ""
        told = f"{owed['vectors']} vectors owed, the oldest for {owed['oldest_seconds']:.0f} s{reason}"
        out.print(told, markup=False, soft_wrap=True)
    for one in found["tables"][:8]:
        out.print(f"[dim]{one['table']:<32} {decimal(one['bytes'])}[/]")


def _collections(found: list[Json]) -> None:
    table = RichTable(*("collection", "memories", "documents", "pinned", "owed", "bytes", "oldest"), box=None)
    for one in found:
        figures = (one[key] for key in ("memories", "documents", "pinned", "owed"))
        table.add_row(one["collection"], *map(str, figures), decimal(one["bytes"]), one["oldest"][:10])
    out.print(table)
