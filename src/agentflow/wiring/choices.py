"""Which database, embedder and adapters the settings ask for."""

import asyncio
from contextlib import AsyncExitStack

from agentflow.embedders.onnx import OnnxEmbedder
from agentflow.embedders.remote import RemoteEmbedder
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.protocols import Embedder
from agentflow.records.address import checked
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
from agentflow.residency.roster import Cached, Roster, nothing_cached, roster
from agentflow.wiring.place import Place, Progress, base_shape


async def database(place: Place, stack: AsyncExitStack, progress: Progress) -> str:
    postgres = place.settings.postgres
    if postgres.url is not None:
        return checked(postgres.url.get_secret_value())
    server = EmbeddedPostgres(embedded(place), progress=progress)
    stack.push_async_callback(asyncio.to_thread, server.stop)
    return await asyncio.to_thread(server.start)


def embedded(place: Place) -> EmbeddedOptions:
    """Our own Postgres, as the settings want it."""
    postgres = place.settings.postgres
    return EmbeddedOptions(
        data=postgres.data,
        bin_dir=postgres.bin_dir,
        start_timeout=postgres.start_timeout,
        run_as=postgres.run_as,
    )


def embedder(place: Place, progress: Progress) -> Embedder:
    chosen = place.settings.embedder
    if chosen.kind == "fake":
        return FakeEmbedder()
    if chosen.kind == "remote" and chosen.url is not None:
        key = chosen.api_key.get_secret_value() if chosen.api_key else None
        return RemoteEmbedder(chosen.url, model=chosen.model, api_key=key, timeout=chosen.timeout)
    return OnnxEmbedder(
        chosen.model, precision=chosen.precision, cache=place.environment.cache, progress=progress
    )


async def opened(embedder: Embedder) -> None:
    """Embed one word: loads weights, checks a remote server, learns the dimension."""
    await embedder.embed(["hello"])


async def adapters(place: Place, progress: Progress, cached: Cached = nothing_cached) -> Roster:
    """Every role's adapter; what was fetched before is found by `cached`."""
    if any(role.lora_path for role in place.settings.roles.values()):
        progress("checking adapters")
    base = await asyncio.to_thread(base_shape, place)
    return await asyncio.to_thread(roster, place.settings, folder=place.folder, base=base, cached=cached)
