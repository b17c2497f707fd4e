"""The driver of a LoRAX server: adapters come with the requests that name them."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from agentflow.errors import AdapterError, EngineError, GenerationFailed
from agentflow.protocols import Capabilities, EngineTier, Health, Loaded, Piece, Prompt
from agentflow.speech import chat
from agentflow.speech.names import Names, no_host_tier, no_pins
from agentflow.speech.wire import Refused, Timeouts, Wire
from agentflow.turn import Json


class Lorax:
    """LoRAX reads an adapter at its first request, from a folder that it sees under the same path.

    It tells nothing of what is in its memory and offers neither unload nor pin: `unload` only stops us from
    asking. It caches by path, so new weights need a new folder.
    """

    name = "lorax"
    capabilities = Capabilities(
        runtime_load=True, unload_frees=False, pin=False, exact_list=False, mixed_batch=True, merge=True
    )
    restarts = 0

    def __init__(self, url: str, *, api_key: str | None = None, timeouts: Timeouts | None = None) -> None:
        self._limits = timeouts or Timeouts()
        self._wire = Wire(url, api_key, self._limits, _nothing)
        self._names = Names(self._wire.url)

    async def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece, None]:
        self._names.check(adapter)
        folder = self._names.folder(adapter) if adapter else None
        async with aclosing(chat.generation(self._wire, _body(prompt, folder), adapter)) as pieces:
            async for piece in pieces:
                yield piece

    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None:
        """The first request is the load."""
        no_host_tier("LoRAX", tier)
        if self._names.has(name, folder):
            return
        try:
            await chat.listened(chat.answer(self._wire, _body(chat.ONE_TOKEN, folder)))
        except (Refused, GenerationFailed) as error:
            raise AdapterError(
                f"The engine did not load '{name}' from {folder}: {error.message}. LoRAX needs the folder under the "
                "same path, and an adapter of its base model.",
                field="adapter",
                value=name,
            ) from error
        self._names.add(name, folder)

    async def unload(self, name: str) -> None:
        self._names.drop(name)

    async def pin(self, name: str) -> None:
        raise no_pins("LoRAX", name)

    async def unpin(self, name: str) -> None:
        """Nothing was pinned."""

    async def loaded(self) -> Sequence[Loaded]:
        return [Loaded(name, "vram", exact=False) for name in self._names.loaded]

    async def health(self) -> Health:
        try:
            await self._wire.get("/health")
            base = (await self._wire.get("/info")).json().get("model_id")
        except EngineError as error:
            return Health(ok=False, detail=error.message)
        return Health(ok=True, detail=f"LoRAX at {self._wire.url} with {base}")

    async def close(self) -> None:
        await self._wire.close()


def _body(prompt: Prompt, folder: Path | None) -> Json:
    if folder is None:
        return chat.body(prompt, "")
    return chat.body(prompt, str(folder)) | {"adapter_source": "local"}


def _nothing() -> None:
    """A restarted LoRAX reads its adapters again by itself."""
