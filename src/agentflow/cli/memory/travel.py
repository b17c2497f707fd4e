"""memory export | import"""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import httpx
import typer

from agentflow.cli import house
from agentflow.cli.memory.asking import Collection, Config, counted, memory_app, opened
from agentflow.cli.terminal import out
from agentflow.errors import AgentflowError, ConfigError
from agentflow.turn import Json


@memory_app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to write; - is the screen.")] = Path("-"),
    config: Config = None,
    collection: Collection = None,
) -> None:
    """Take memories and documents along: one JSON object per line; with an admin's key everybody's documents too."""
    asyncio.run(_export(config, file, collection))


@memory_app.command("import")
def take(
    file: Annotated[Path, typer.Argument(help="Lines as exported.")],
    config: Config = None,
) -> None:
    """Bring memories and documents; what is there stays, an older document is replaced. It may be repeated."""
    counts = asyncio.run(_import(config, file))
    documents = f" ({counted({'documents': counts['documents']})})" if counts["documents"] else ""
    out.print(f"{counts['imported']} imported{documents}, {counts['known']} were there already")


async def _export(config: Path | None, file: Path, collection: str | None) -> None:
    query = {"collection": collection} if collection else {}
    async with opened(config) as client, client.stream("GET", "/memory/export", params=query) as response:
        if response.status_code != httpx.codes.OK:
            await response.aread()
            raise AgentflowError(str(response.json().get("message", response.text)))
        if str(file) == "-":
            async for piece in response.aiter_bytes():
                typer.echo(piece, nl=False)
            return
        counts = await _kept(response, file)
    out.print(f"{counted(counts)} are in {file}", markup=False, soft_wrap=True)


async def _kept(response: httpx.Response, file: Path) -> dict[str, int]:
    """Write the lines beside the file, which takes their place when all are there; returns how many of which kind."""
    beside, kinds, rest = file.with_name(f".{file.name}.part"), Counter[str](), b""
    try:
        with beside.open("wb") as target:
            async for piece in response.aiter_bytes():
                target.write(piece)
                *lines, rest = (rest + piece).split(b"\n")
                kinds.update(json.loads(line)["kind"] for line in lines)
        beside.replace(file)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be written: {error.strerror}.", field="file", value=str(file)
        ) from error
    documents, chunks = kinds.pop("document", 0), kinds.pop("chunk", 0)
    return {"memories": kinds.total(), "documents": documents, "chunks": chunks}


async def _import(config: Path | None, file: Path) -> Json:
    try:
        content = await asyncio.to_thread(file.read_bytes)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}.", field="file", value=str(file)
        ) from error
    async with opened(config) as client:
        return await house.ask(client, "POST", "/memory/import", content=content)
