"""Commands about where memories are: memory places | move | check."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from pydantic import ValidationError
from rich.markup import escape

from agentflow.cli import house
from agentflow.cli.memory.asking import AsJson, Config, memory_app
from agentflow.cli.terminal import out, steps
from agentflow.errors import BadInput, ConfigError, UnknownCollection
from agentflow.settings import Collection, edit
from agentflow.settings.document import read
from agentflow.turn import Json
from agentflow.wiring import Place
from agentflow.wiring.homes import vector_homes

Name = Annotated[str, typer.Argument(help="The collection, as in the file.")]
LOOK = 0.5
"""Seconds between two looks at a move."""


@memory_app.command()
def places(config: Config = None, as_json: AsJson = False) -> None:
    """Show where each collection's vectors are searched, and what a place has not heard of yet."""
    found = asyncio.run(_asked(house.place(config), "/memory/places"))
    if as_json:
        out.print_json(json.dumps(found))
        return
    for one in found["places"]:
        _placed(one)


@memory_app.command()
def move(
    name: Name,
    to: Annotated[str, typer.Option("--to", help="postgres, faiss, qdrant, pinecone or langchain.")],
    location: Annotated[str | None, typer.Option(help="RAM, SSD, a folder or an address.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE, as in the file.")
    ] = None,
    config: Config = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print what to write; change nothing.")] = False,
) -> None:
    """Search a collection in another place. The file is changed, the new place filled while the old one answers."""
    place = house.place(config)
    if name not in place.settings.collections:
        known = ", ".join(place.settings.collections)
        raise UnknownCollection(
            f"There is no collection {name}; there are {known}.", field="name", value=name
        )
    if place.file is None:
        raise ConfigError("There is no file to change; name one with --config.", field="config")
    block = _block(read(place.file).data, name, to, location, option or [])
    if only_print:
        out.print(f"collections:\n  {name}: {json.dumps(block)}", markup=False)
        return
    _possible(place, name, block)
    place = _written(place.file, name, block)
    out.print(f"{place.file} says so now", markup=False, soft_wrap=True)
    _placed(asyncio.run(_moved(place, name)))


@memory_app.command()
def check(config: Config = None, as_json: AsJson = False) -> None:
    """Compare counts that must agree, and measure how much of the nearest each collection's search finds."""
    found = asyncio.run(_asked(house.place(config), "/memory/check"))
    if as_json:
        out.print_json(json.dumps(found))
    else:
        for one in found["mismatches"]:
            line = f"[red]{one['collection']}[/]: scope {one['scope']} notes {one['noted']} {one['what']}"
            out.print(f"{line}, there are {one['counted']}", soft_wrap=True)
        for one in found["recall"]:
            line = f"{escape(one['collection'])}: {one['items']} memories, searched by {escape(one['by'])}"
            out.print(f"{line}: {one['recall']:.1%} of the ten nearest", soft_wrap=True)
        out.print(f"{found['owed']} vectors are owed")
    if not found["ok"]:
        raise typer.Exit(1)


def _block(data: Json, name: str, to: str, location: str | None, options: list[str]) -> dict[str, Any]:
    """The collection's new block: place and options as given, all else as it was. Raises BadInput."""
    former = (data.get("collections") or {}).get(name) or {}
    kept = {key: value for key, value in former.items() if key not in {"backend", "location", "options"}}
    pairs = [one.partition("=") for one in options]
    block = {
        "backend": to,
        **({"location": location} if location else {}),
        **({"options": {key: value for key, _, value in pairs}} if pairs else {}),
        **kept,
    }
    try:
        Collection.model_validate(block)
    except ValidationError as error:
        reasons = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
        raise BadInput(f"{name} cannot move there: {reasons}.", field="to", value=to) from error
    return block


def _possible(place: Place, name: str, block: Json) -> None:
    """Raises StartError for an extra that is not installed, ConfigError for a store that cannot be imported, and
    BadInput for a folder that is a file.
    """
    wanted = Collection.model_validate(block)
    vector_homes({name: wanted}, place.folder, 1)
    own = wanted.folder(name)
    there = None if own is None else place.folder / own.expanduser()
    if there is not None and there.exists() and not there.is_dir():
        raise BadInput(f"{there} is a file; vectors need a folder.", field="location", value=str(there))


def _written(file: Path, name: str, block: Json) -> Place:
    """Change the file; it stays as it was if it could not be used then. Raises ConfigError."""
    text = file.read_text(encoding="utf-8")
    edit.write(file, edit.with_collection(text, name, block))
    try:
        return house.place(file)
    except ConfigError:
        edit.write(file, text)
        raise


async def _asked(place: Place, path: str) -> Json:
    with steps("asking agentflow") as progress:
        async with house.any_door(place, progress=progress) as there:
            return await house.ask(there, "GET", path)


async def _moved(place: Place, name: str) -> Json:
    """Wait until the place that the file names answers; an interruption does no harm."""
    with steps("moving") as progress:
        async with house.any_door(place, progress=progress) as there:
            while True:
                one = await _state(there, name)
                progress(_told(one))
                if _arrived(one, place.settings.collections[name]):
                    return one
                await asyncio.sleep(LOOK)


async def _state(there: httpx.AsyncClient, name: str) -> Json:
    found = await house.ask(there, "GET", f"/memory/places?collection={name}")
    one: Json = found["places"][0]
    return one


def _arrived(one: Json, wanted: Collection) -> bool:
    """Whether the server has read the file again, and the place that it names answers."""
    read_again = (one["backend"], one["location"]) == (wanted.backend, wanted.location)
    if not read_again or one["moving_to"] is not None or (wanted.options.store or "") not in one["place"]:
        return False
    there = one["place"] == "postgres" if wanted.backend == "postgres" else one["place"] != "postgres"
    return there and all(told["serving"] for told in one["told"])


def _told(one: Json) -> str:
    errors = [told["error"] for told in one["told"] if told["error"]]
    reason = one["trouble"] or next(iter(errors), None)
    return reason or f"moving to {one['moving_to'] or one['place']}"


def _placed(one: Json) -> None:
    out.print(f"{one['collection']}: {one['place']}", markup=False, soft_wrap=True)
    if one["trouble"]:
        out.print(f"  [yellow]waits[/]: {escape(one['trouble'])}", soft_wrap=True)
    for told in one["told"]:
        state = "answers" if told["serving"] else "is being filled"
        proof = f", {told['items']} vectors proven, sha256 {told['digest'][:12]}" if told["digest"] else ""
        error = f", {told['error']}" if told["error"] else ""
        line = f"  {told['place']} {state}{proof}, {told['waiting']} changes waiting{error}"
        out.print(line, markup=False, soft_wrap=True)
