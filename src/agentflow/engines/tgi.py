"""The driver of Hugging Face's Text Generation Inference: adapters are those it was started with."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from agentflow.errors import AdapterError, EngineError, GenerationFailed
from agentflow.protocols import Capabilities, EngineTier, Health, Loaded, Piece, Prompt
from agentflow.speech import chat
from agentflow.speech.names import Names, no_host_tier, no_pins, role_of
from agentflow.speech.wire import Refused, Timeouts, Wire

BASE = "tgi"
"""The model name that TGI takes for no adapter."""


class Tgi:
    """Started with LORA_ADAPTERS=role=/path,...: an adapter is found under `role@digest`, or else its role's name.

    Everything is resident for the server's life; `unload` only stops us from asking.
    """

    name = "tgi"
    capabilities = Capabilities(
        runtime_load=False,
        unload_frees=False,
        pin=False,
        exact_list=False,
        mixed_batch=True,
        opens_folders=False,
    )
    restarts = 0

    def __init__(self, url: str, *, api_key: str | None = None, timeouts: Timeouts | None = None) -> None:
        self._wire = Wire(url, api_key, timeouts or Timeouts(), _nothing)
        self._names = Names(self._wire.url)
        self._served: dict[str, str] = {}

    async def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece, None]:
        self._names.check(adapter)
        asked = chat.body(prompt, self._served[adapter] if adapter else BASE)
        async with aclosing(chat.generation(self._wire, asked, adapter)) as pieces:
            async for piece in pieces:
                yield piece

    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None:
        """Find out under which name the server has it. Raises AdapterError."""
        no_host_tier("TGI", tier)
        if self._names.has(name, folder):
            return
        reasons = []
        for served in dict.fromkeys((name, role_of(name))):
            try:
                await chat.listened(chat.answer(self._wire, chat.body(chat.ONE_TOKEN, served)))
            except (Refused, GenerationFailed) as error:
                reasons.append(error.message)
            else:
                self._served[name] = served
                self._names.add(name, folder)
                return
        raise AdapterError(
            f"The engine does not have '{name}': {reasons[-1]}. TGI loads adapters at its start only: set "
            f"LORA_ADAPTERS={role_of(name)}={folder} and restart it.",
            field="adapter",
            value=name,
        )

    async def unload(self, name: str) -> None:
        self._names.drop(name)

    async def pin(self, name: str) -> None:
        raise no_pins("TGI", name)

    async def unpin(self, name: str) -> None:
        """Nothing was pinned."""

    async def loaded(self) -> Sequence[Loaded]:
        return [Loaded(name, "vram", exact=False) for name in self._names.loaded]

    async def health(self) -> Health:
        try:
            await self._wire.get("/health")
            told = (await self._wire.get("/info")).json()
        except EngineError as error:
            return Health(ok=False, detail=error.message)
        return Health(
            ok=True, detail=f"TGI {told.get('version')} at {self._wire.url} with {told.get('model_id')}"
        )

    async def close(self) -> None:
        await self._wire.close()


def _nothing() -> None:
    """A restarted TGI has the adapters of its start."""
