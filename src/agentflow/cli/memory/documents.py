"""memory add | documents"""

import asyncio
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.markup import escape
from rich.progress import Progress

from agentflow.cli.memory.asking import (
    AsJson,
    Collection,
    Config,
    ask,
    counted,
    memory_app,
    opened,
    printed,
)
from agentflow.cli.terminal import err, out
from agentflow.documents.passages import CODE, READERS, TEXT
from agentflow.errors import BadInput, ConfigError

KINDS = {one for one in (*READERS, *CODE, *TEXT) if one}


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
    found = _found(files)
    if not found:
        raise BadInput(
            f"There is no file in {files[0]} that can be read.", field="files", value=str(files[0])
        )
    failed = asyncio.run(_add(config, found, form))
    if failed:
        raise BadInput(
            f"{failed} of {len(found)} files could not be added; the reasons stand above.", field="files"
        )


@memory_app.command()
def documents(config: Config = None, as_json: AsJson = False) -> None:
    """List documents."""
    found = ask(config, "GET", "/memory/documents")
    if printed(found, as_json=as_json):
        return
    if not found["documents"]:
        out.print("there are no documents yet; add some with `agentflow memory add FILES`")
    for one in found["documents"]:
        whose = "everybody" if one["shared"] else one["role"] or one["thread_id"] or "you"
        owed = f", {one['owed']} not embedded yet" if one["owed"] else ""
        size = counted({"chunks": one["chunks"]})
        told = f"{one['id']:>6}  {one['name']}  {size}{owed}  {one['collection']}, for {whose}"
        out.print(told, markup=False, soft_wrap=True)


def _found(files: list[Path]) -> list[Path]:
    """The files, and those of the folders that can be read and are not hidden. Raises ConfigError."""
    for one in files:
        if not one.exists():
            raise ConfigError(f"{one} is not there.", field="files", value=str(one))
    inside = ((one, file) for one in files if one.is_dir() for file in sorted(one.rglob("*")))
    readable = [
        file
        for folder, file in inside
        if file.is_file()
        and file.suffix.lower() in KINDS
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    return [one for one in files if one.is_file()] + readable


async def _add(config: Path | None, files: list[Path], form: dict[str, str]) -> int:
    """Upload one after another; returns how many were refused."""
    failed = 0
    async with opened(config) as client:
        with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
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
    changes = [f"{told[key]} {key}" for key in ("new", "kept", "removed") if told.get(key)]
    parts = ", ".join([counted({"chunks": told["chunks"]}), *changes]) if "chunks" in told else ""
    out.print(f"{told['status']:<10} {file}  {parts}".rstrip(), markup=False, soft_wrap=True)
