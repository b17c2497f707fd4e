"""Commands about memories: look, change, take along, forget, add documents."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table as RichTable

from agentflow.cli import house
from agentflow.cli.terminal import err, out, steps
from agentflow.documents.passages import CODE, READERS, TEXT
from agentflow.errors import BadInput, ConfigError
from agentflow.settings.values import seconds
from agentflow.turn import Json

memory_app = typer.Typer(
    help="What agentflow remembers: look, change, take along, forget.", no_args_is_help=True
)
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The file; default ./agentflow.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Number = Annotated[int, typer.Argument(help="The memory's number, as list shows it.")]
KINDS = {one for one in (*READERS, *CODE, *TEXT) if one}
Collection = Annotated[str | None, typer.Option(help="Only this collection.")]


@memory_app.command("list")
def listed(
    config: Config = None,
    text: Annotated[str | None, typer.Option(help="Only those that hold this text.")] = None,
    collection: Collection = None,
    thread: Annotated[str | None, typer.Option(help="Only those of this conversation.")] = None,
    before: Annotated[int | None, typer.Option(help="Older than this one.")] = None,
    limit: Annotated[int, typer.Option(help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show memories, newest first."""
    query = {"text": text, "collection": collection, "thread_id": thread, "before": before, "limit": limit}
    found = _ask(config, "GET", "/memory", query=query)
    if as_json:
        out.print_json(json.dumps(found))
        return
    for one in found["memories"]:
        _line(one)
    if found["next"]:
        out.print(f"[dim]older ones: --before {found['next']}[/]")


@memory_app.command()
def search(
    question: Annotated[str, typer.Argument(help="As a user would ask.")],
    config: Config = None,
    collection: Collection = None,
    k: Annotated[int, typer.Option(help="How many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Search as a turn does; shows why each is found, and whether a turn would show it."""
    found = _ask(config, "GET", "/memory/search", query={"q": question, "collection": collection, "k": k})
    if as_json:
        out.print_json(json.dumps(found))
        return
    if found["memory"] == "degraded":
        out.print("[yellow]by words only: the embedder is down or slow[/]")
    for one in found["memories"]:
        why = one["why"]
        mark = "[green]recalled[/]" if one["recalled"] else "[dim]too weak[/]"
        out.print(f"{one['id']:>8}  {one['score']:.2f} {mark}  ", end="")
        out.print(f"{one['speaker']}: {_short(one['content'])}", markup=False, soft_wrap=True)
        cosine = "none" if why["cosine"] is None else f"{why['cosine']:.2f}"
        words = escape(", ".join(why["matched"])) or "none"
        out.print(f"          [dim]words {why['bm25']:.1f} ({words}) · meaning {cosine} · neighbours "
                  f"{why['neighbours']:.1f} · session {why['session']:.1f}[/]", soft_wrap=True)  # fmt: skip


@memory_app.command()
def show(number: Number, config: Config = None, as_json: AsJson = False) -> None:
    """Show one memory with its earlier wordings."""
    found = _ask(config, "GET", f"/memory/{number}")
    if as_json:
        out.print_json(json.dumps(found))
        return
    for key, value in found.items():
        if value not in (None, [], False, ""):
            out.print(f"{key:>12}  {value}", markup=False, soft_wrap=True)


@memory_app.command()
def edit(
    number: Number,
    content: Annotated[str, typer.Argument(help="The new wording.")],
    config: Config = None,
) -> None:
    """Reword a memory; the former wording is kept in its history."""
    _line(_ask(config, "PATCH", f"/memory/{number}", body={"content": content}))


@memory_app.command()
def pin(
    number: Number,
    config: Config = None,
    off: Annotated[bool, typer.Option("--off", help="Take the pin away.")] = False,
) -> None:
    """Offer it to every prompt, and let it never expire."""
    _line(_ask(config, "PATCH", f"/memory/{number}", body={"pinned": not off}))


@memory_app.command()
def hide(
    number: Number,
    config: Config = None,
    off: Annotated[bool, typer.Option("--off", help="Let it be found again.")] = False,
) -> None:
    """Keep it, but let nothing find it."""
    _line(_ask(config, "PATCH", f"/memory/{number}", body={"hidden": not off}))


@memory_app.command()
def expire(
    number: Number,
    after: Annotated[str, typer.Argument(help="A time from now such as 30d or 12h, or never.")],
    config: Config = None,
) -> None:
    """Forget it by itself after a time."""
    _line(_ask(config, "PATCH", f"/memory/{number}", body={"expires_at": _moment(after)}))


@memory_app.command()
def forget(  # noqa: PLR0913, PLR0917 - one option per way to choose
    numbers: Annotated[list[int] | None, typer.Argument(help="These memories.")] = None,
    config: Config = None,
    thread: Annotated[str | None, typer.Option(help="A conversation, with its messages.")] = None,
    document: Annotated[int | None, typer.Option(help="A document.")] = None,
    text: Annotated[str | None, typer.Option(help="Every memory that holds this.")] = None,
    collection: Annotated[str | None, typer.Option(help="All in a collection.")] = None,
    everything: Annotated[str | None, typer.Option(help="user: all of yours; tenant: everybody's.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget for real; shows what would go and asks, then prints the receipt."""
    given: Json = {
        "ids": numbers or None, "thread_id": thread, "document": document, "text": text,
        "collection": collection, "everything": everything,
    }  # fmt: skip
    body = {key: value for key, value in given.items() if value is not None}
    if not yes:
        preview = _ask(config, "POST", "/memory/forget", body={**body, "preview": True})
        out.print(f"would forget {_counted(preview['counts'])}")
        typer.confirm("forget it for good?", abort=True)
    receipt = _ask(config, "POST", "/memory/forget", body=body)
    if as_json:
        out.print_json(json.dumps(receipt))
        return
    out.print(
        f"forgotten: {_counted(receipt['counts'])}; receipt {receipt['receipt']} is {receipt['status']}"
    )


@memory_app.command()
def stats(config: Config = None, as_json: AsJson = False) -> None:
    """Show how much is remembered: items and bytes, vectors owed, the oldest."""
    found = _ask(config, "GET", "/memory/stats")
    if as_json:
        out.print_json(json.dumps(found))
        return
    table = RichTable(*("collection", "memories", "documents", "pinned", "owed", "bytes", "oldest"), box=None)
    for one in found["collections"]:
        figures = (one[key] for key in ("memories", "documents", "pinned", "owed"))
        table.add_row(one["collection"], *map(str, figures), decimal(one["bytes"]), one["oldest"][:10])
    out.print(table)
    owed = found["owed"]
    if owed["vectors"]:
        reason = f", last refusal: {owed['last_error']}" if owed["last_error"] else ""
        told = f"{owed['vectors']} vectors owed, the oldest for {owed['oldest_seconds']:.0f} s{reason}"
        out.print(told, markup=False, soft_wrap=True)
    for one in found["tables"][:8]:
        out.print(f"[dim]{one['table']:<32} {decimal(one['bytes'])}[/]")


@memory_app.command()
def receipts(config: Config = None) -> None:
    """List what was forgotten, in numbers."""
    for one in _ask(config, "GET", "/memory/receipts")["receipts"]:
        out.print(
            f"{one['at']}  {one['status']:<8} by {one['by']}: {_counted(one['counts'])}  {one['receipt']}"
        )


@memory_app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to write; - is the screen.")] = Path("-"),
    config: Config = None,
    collection: Collection = None,
) -> None:
    """Take memories and documents along: one JSON object per line."""
    asyncio.run(_export(config, file, collection))


@memory_app.command("import")
def take(
    file: Annotated[Path, typer.Argument(help="Lines as exported.")],
    config: Config = None,
) -> None:
    """Bring memories and documents; what is there stays, an older document is replaced. It may be repeated."""
    counts = asyncio.run(_import(config, file))
    documents = f" ({counts['documents']} documents)" if counts["documents"] else ""
    out.print(f"{counts['imported']} imported{documents}, {counts['known']} were there already")


@memory_app.command()
def add(
    files: Annotated[list[Path], typer.Argument(help="Files, or folders of them.")],
    config: Config = None,
    collection: Collection = None,
    role: Annotated[str | None, typer.Option(help="Only for this role.")] = None,
    thread: Annotated[str | None, typer.Option(help="Only for this conversation.")] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="For all users of the tenant.")] = False,
) -> None:
    """Add documents: text, Markdown, code, CSV, HTML, PDF, DOCX. Added again, only what changed is replaced."""
    given = {
        "collection": collection,
        "role": role,
        "thread_id": thread,
        "everybody": "true" if everybody else None,
    }
    form = {key: value for key, value in given.items() if value is not None}
    failed = asyncio.run(_add(config, _found(files), form))
    if failed:
        raise BadInput(f"{failed} of the files could not be added; the reasons stand above.", field="files")


@memory_app.command()
def documents(config: Config = None, as_json: AsJson = False) -> None:
    """List documents."""
    found = _ask(config, "GET", "/memory/documents")
    if as_json:
        out.print_json(json.dumps(found))
        return
    for one in found["documents"]:
        whose = "everybody" if one["shared"] else one["role"] or one["thread_id"] or "you"
        owed = f", {one['owed']} not embedded yet" if one["owed"] else ""
        told = (
            f"{one['id']:>6}  {one['name']}  {one['chunks']} chunks{owed}  {one['collection']}, for {whose}"
        )
        out.print(told, markup=False, soft_wrap=True)


# --- work ----------------------------------------------------------------------------------


def _ask(
    config: Path | None, method: str, path: str, *, query: Json | None = None, body: Json | None = None
) -> Json:
    return asyncio.run(_asked(config, method, path, query or {}, body))


async def _asked(config: Path | None, method: str, path: str, query: Json, body: Json | None) -> Json:
    given = {key: value for key, value in query.items() if value is not None}
    async with opened(config) as client:
        return await house.ask(client, method, f"{path}?{httpx.QueryParams(given)}" if given else path, body)


@asynccontextmanager
async def opened(config: Path | None) -> AsyncIterator[httpx.AsyncClient]:
    """The agentflow that listens, or one of our own for a while."""
    async with AsyncExitStack() as stack:
        with steps("starting") as progress:
            client = await stack.enter_async_context(house.any_door(house.place(config), progress=progress))
        yield client


async def _export(config: Path | None, file: Path, collection: str | None) -> None:
    query = {"collection": collection} if collection else {}
    async with opened(config) as client, client.stream("GET", "/memory/export", params=query) as response:
        response.raise_for_status()
        if str(file) == "-":
            async for line in response.aiter_lines():
                out.print(line, markup=False, soft_wrap=True)
            return
        beside, kinds = file.with_name(f".{file.name}.part"), Counter[str]()
        with beside.open("w", encoding="utf-8") as target:
            async for line in response.aiter_lines():
                target.write(line + "\n")
                kinds[json.loads(line)["kind"]] += 1
        beside.replace(file)
    documents = kinds.pop("document", 0)
    told = f" and {documents} documents in {kinds.pop('chunk', 0)} chunks" if documents else ""
    out.print(f"{kinds.total()} memories{told} are in {file}", markup=False, soft_wrap=True)


async def _import(config: Path | None, file: Path) -> Json:
    try:
        content = await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}.", field="file", value=str(file)
        ) from error
    async with opened(config) as client:
        return await house.ask(client, "POST", "/memory/import", content=content)


def _found(files: list[Path]) -> list[Path]:
    """The files, and those of the folders that can be read. Raises ConfigError."""
    for one in files:
        if not one.exists():
            raise ConfigError(f"{one} is not there.", field="files", value=str(one))
    inside = (file for one in files if one.is_dir() for file in sorted(one.rglob("*")))
    readable = [file for file in inside if file.is_file() and file.suffix.lower() in KINDS]
    return [one for one in files if one.is_file()] + readable


async def _add(config: Path | None, files: list[Path], form: dict[str, str]) -> int:
    """Upload one after another; returns how many were refused."""
    failed = 0
    async with opened(config) as client:
        with Progress(console=err, transient=True) as progress:
            task = progress.add_task("adding", total=sum(file.stat().st_size for file in files) or 1)
            for file in files:
                progress.update(task, description=escape(file.name))
                data = await asyncio.to_thread(file.read_bytes)
                response = await client.post(
                    "/memory/documents", data=form, files={"file": (file.name, data)}
                )
                progress.advance(task, len(data))
                failed += not response.is_success
                _told(file, response)
    return failed


def _told(file: Path, response: httpx.Response) -> None:
    told = response.json()
    if not response.is_success:
        err.print(
            f"[red]refused[/]    {escape(str(file))}: {escape(str(told.get('message')))}", soft_wrap=True
        )
        return
    parts = ", ".join(f"{told[key]} {key}" for key in ("chunks", "new", "kept", "removed") if told.get(key))
    out.print(f"{told['status']:<10} {file}  {parts}", markup=False, soft_wrap=True)


def _moment(after: str) -> str | None:
    if after == "never":
        return None
    try:
        return (datetime.now(UTC) + timedelta(seconds=float(seconds(after)))).isoformat()
    except ValueError as error:
        raise BadInput(f"{error}; or never.", field="after", value=after) from error


def _line(one: Json) -> None:
    marks = "".join(mark for key, mark in (("pinned", "📌"), ("hidden", "🚫"), ("edited", "✎")) if one[key])
    until = f" until {one['expires_at'][:10]}" if one["expires_at"] else ""
    told = f"{one['id']:>8}  {one['said_at'][:10]}{until} {marks} {one['speaker']}: {_short(one['content'])}"
    out.print(told, markup=False, soft_wrap=True)


def _short(content: str) -> str:
    line = " ".join(content.split())
    return line if len(line) <= 100 else f"{line[:97]}..."


def _counted(counts: Json) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"
