"""Which engine the settings ask for."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from agentflow.engines.llamacpp import LlamaCpp
from agentflow.engines.lorax import Lorax
from agentflow.engines.ollama import Ollama
from agentflow.engines.sglang import Sglang
from agentflow.engines.textgen import TextGen
from agentflow.engines.tgi import Tgi
from agentflow.engines.vllm import Vllm
from agentflow.protocols import Engine
from agentflow.settings.schema import Model
from agentflow.speech.wire import Timeouts
from agentflow.wiring.place import Place, Progress, base_folder


async def engine(place: Place, stack: AsyncExitStack, progress: Progress) -> Engine:
    """The engine; a stand-in's server is started on `stack`."""
    model = place.settings.model
    if model.engine == "local":
        return _local(place, progress)
    if model.engine == "double":
        return _vllm(model, await _double(model, stack))
    return _SERVERS[model.engine](model)


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
    return Vllm(
        url, api_key=_key(model), timeouts=_timeouts(model), thinking=model.thinking, slots=model.slots
    )


_SERVERS: dict[str, Callable[[Model], Engine]] = {
    "vllm": lambda model: _vllm(model, model.url),
    "sglang": lambda model: Sglang(
        model.url, api_key=_key(model), timeouts=_timeouts(model), slots=model.slots
    ),
    "lorax": lambda model: Lorax(model.url, api_key=_key(model), timeouts=_timeouts(model)),
    "llamacpp": lambda model: LlamaCpp(model.url, api_key=_key(model), timeouts=_timeouts(model)),
    "ollama": lambda model: Ollama(
        model.url, base=model.base, api_key=_key(model), timeouts=_timeouts(model)
    ),
    "textgen": lambda model: TextGen(model.url, api_key=_key(model), timeouts=_timeouts(model)),
    "tgi": lambda model: Tgi(model.url, api_key=_key(model), timeouts=_timeouts(model)),
}


def _key(model: Model) -> str | None:
    return model.api_key.get_secret_value() if model.api_key else None


def _timeouts(model: Model) -> Timeouts:
    limits = model.timeouts
    return Timeouts(
        connect=limits.connect,
        first_token=limits.first_token,
        between_tokens=limits.between_tokens,
        total=limits.total,
    )


async def _double(model: Model, stack: AsyncExitStack) -> str:
    """In threads, since it waits for its own server."""
    from agentflow.fakes.vllm import Options, serve  # noqa: PLC0415 - a web server that only this engine needs

    slots = model.slots + 1
    options = Options(max_loras=slots, max_cpu_loras=slots, max_lora_rank=model.max_rank)
    serving = serve(options)
    served = await asyncio.to_thread(serving.__enter__)
    stack.push_async_callback(asyncio.to_thread, serving.__exit__, None, None, None)
    return served.url
