"""What the commands about memories share: the group, its options, and a server to ask."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer

from agentflow.cli import house
from agentflow.cli.terminal import out, steps
from agentflow.errors import AgentflowError
from agentflow.turn import Json

memory_app = typer.Typer(
    help="What agentflow remembers: look, change, take along, forget.", no_args_is_help=True
)
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The file; default ./agentflow.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Number = Annotated[int, typer.Argument(help="The memory's number, as list shows it.")]
Collection = Annotated[str | None, typer.Option(help="Only this collection.")]


def ask(
    config: Path | None, method: str, path: str, *, query: Json | None = None, body: Json | None = None
) -> Json:
    """One request. Raises AgentflowError with the server's own words for a refusal."""
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
        try:
            yield client
        except httpx.HTTPError as error:
            raise AgentflowError(
                f"agentflow broke off ({str(error) or type(error).__name__}); the same command may be given again."
            ) from error


def printed(found: Json, *, as_json: bool) -> bool:
    """Whether the answer was printed as it is, so that nothing more is to be said."""
    if as_json:
        out.print_json(json.dumps(found))
    return as_json


def line(one: Json) -> None:
    """A memory on one line."""
    marks = [
        word for key, word in (("pinned", "pinned"), ("hidden", "hidden"), ("edited", "reworded")) if one[key]
    ]
    if one["expires_at"]:
        marks.append(f"until {one['expires_at'][:10]}")
    if one["only_role"]:
        marks.append(f"only for {one['only_role']}")
    noted = f" [{', '.join(marks)}]" if marks else ""
    told = f"{one['id']:>8}  {one['said_at'][:10]}{noted} {one['speaker']}: {short(one['content'])}"
    out.print(told, markup=False, soft_wrap=True)


def short(content: str) -> str:
    """A text on one line, cut."""
    whole = " ".join(content.split())
    return whole if len(whole) <= 100 else f"{whole[:97]}..."


def counted(counts: Mapping[str, int]) -> str:
    """Numbers of things, those that are none left out."""
    told = (f"{count} {_one(name) if count == 1 else name}" for name, count in counts.items() if count)
    return ", ".join(told) or "nothing"


def _one(name: str) -> str:
    return {"memories": "memory", "feedback": "feedback"}.get(name, name.removesuffix("s"))
