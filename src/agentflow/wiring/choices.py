"""Which database, embedder, engine and adapters the settings ask for."""

import asyncio
from contextlib import AsyncExitStack

from agentflow.embedders.onnx import OnnxEmbedder
from agentflow.embedders.remote import RemoteEmbedder
from agentflow.engines.vllm import Timeouts, Vllm
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.protocols import Embedder, Engine
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
from agentflow.residency.roster import Roster, roster
from agentflow.settings.schema import Model
from agentflow.wiring.place import Place, Progress, base_folder, base_shape


async def database(place: Place, stack: AsyncExitStack, progress: Progress) -> str:
    postgres = place.settings.postgres
    if postgres.url is not None:
        return postgres.url.get_secret_value()
    options = EmbeddedOptions(
        data=postgres.data,
        bin_dir=postgres.bin_dir,
        start_timeout=postgres.start_timeout,
        run_as=postgres.run_as,
    )
    server = EmbeddedPostgres(options, progress=progress)
    stack.push_async_callback(asyncio.to_thread, server.stop)
    return await asyncio.to_thread(server.start)


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


async def engine(place: Place, stack: AsyncExitStack, progress: Progress) -> Engine:
    """The engine; a stand-in's server is started on `stack`."""
    model = place.settings.model
    match model.engine:
        case "local":
            return _local(place, progress)
        case "double":
            return _vllm(model, await _double(model, stack))
        case _:
            return _vllm(model, model.url)


def _local(place: Place, progress: Progress) -> Engine:
    from agentflow.engines.local import LocalEngine  # noqa: PLC0415 - an extra, and slow to import

    model = place.settings.model
    return LocalEngine(
        base_folder(place),
        device=model.device,
        threads=model.threads or (1 if model.base == "tiny" else None),
        max_batch=model.batch,
        thinking=model.thinking,
        progress=progress,
    )


def _vllm(model: Model, url: str) -> Engine:
    limits = model.timeouts
    timeouts = Timeouts(
        connect=limits.connect,
        first_token=limits.first_token,
        between_tokens=limits.between_tokens,
        total=limits.total,
    )
    key = model.api_key.get_secret_value() if model.api_key else None
    return Vllm(url, api_key=key, timeouts=timeouts, thinking=model.thinking, slots=model.slots)


async def _double(model: Model, stack: AsyncExitStack) -> str:
    """In threads, since it waits for its own server."""
    from agentflow.fakes.vllm import Options, serve  # noqa: PLC0415 - a web server that only this engine needs

    slots = model.slots + 1
    options = Options(max_loras=slots, max_cpu_loras=slots, max_lora_rank=model.max_rank)
    serving = serve(options)
    served = await asyncio.to_thread(serving.__enter__)
    stack.push_async_callback(asyncio.to_thread, serving.__exit__, None, None, None)
    return served.url


async def adapters(place: Place, progress: Progress) -> Roster:
    if any(role.lora_path for role in place.settings.roles.values()):
        progress("checking adapters")
    base = await asyncio.to_thread(base_shape, place)
    return await asyncio.to_thread(roster, place.settings, folder=place.folder, base=base)
