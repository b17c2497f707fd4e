"""The driver of text-generation-webui, whose adapters are global: one speaks at a time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from agentflow.errors import AdapterError, EngineDown, EngineError, GenerationFailed
from agentflow.protocols import Capabilities, EngineTier, Health, Loaded, Piece, Prompt
from agentflow.speech import chat
from agentflow.speech.names import Names, no_host_tier, no_pins, role_of
from agentflow.speech.wire import Refused, Timeouts, Wire


class TextGen:
    """The server started with --api; `api_key` is its admin key. Adapters lie in its own loras folder.

    An adapter is found there under `role@digest`, its role's name or its folder's name. Whoever speaks with
    another adapter than the present one waits until nobody speaks, then the server is switched.
    """

    name = "textgen"
    capabilities = Capabilities(
        runtime_load=True,
        unload_frees=True,
        pin=False,
        exact_list=True,
        mixed_batch=False,
        opens_folders=False,
    )
    restarts = 0

    def __init__(self, url: str, *, api_key: str | None = None, timeouts: Timeouts | None = None) -> None:
        self._limits = timeouts or Timeouts()
        self._wire = Wire(url, api_key, self._limits, _nothing)
        self._names = Names(self._wire.url)
        self._served: dict[str, str] = {}
        self._door = asyncio.Lock()
        self._silence = asyncio.Event()
        self._silence.set()
        self._speaking = 0

    async def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece, None]:
        self._names.check(adapter)
        asked = chat.body(prompt, "default") | {"mode": "instruct"}
        async with self._turn(adapter), aclosing(chat.generation(self._wire, asked, adapter)) as pieces:
            async for piece in pieces:
                yield piece

    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None:
        """Switch to it and hear one token. Raises AdapterError."""
        no_host_tier("text-generation-webui", tier)
        if self._names.has(name, folder):
            return
        self._served[name] = await self._find(name, folder)
        self._names.add(name, folder)
        try:
            await chat.listened(self.generate(chat.ONE_TOKEN, adapter=name))
        except GenerationFailed as error:
            self._names.drop(name)
            raise AdapterError(
                f"The engine did not load '{name}': {error.message}", field="adapter", value=name
            ) from error

    async def unload(self, name: str) -> None:
        self._names.drop(name)
        if self._served.get(name) in await self._active():
            async with self._turn(None):
                pass

    async def pin(self, name: str) -> None:
        raise no_pins("text-generation-webui", name)

    async def unpin(self, name: str) -> None:
        """Nothing was pinned."""

    async def loaded(self) -> Sequence[Loaded]:
        """The one that speaks now; the others come back when they are asked."""
        active = await self._active()
        return [
            Loaded(name, "vram", exact=True) for name in self._names.loaded if [self._served[name]] == active
        ]

    async def health(self) -> Health:
        try:
            told = (await self._wire.get("/v1/internal/model/info")).json()
        except EngineError as error:
            return Health(ok=False, detail=error.message)
        return Health(
            ok=True, detail=f"text-generation-webui at {self._wire.url} with {told.get('model_name')}"
        )

    async def close(self) -> None:
        await self._wire.close()

    @asynccontextmanager
    async def _turn(self, adapter: str | None) -> AsyncIterator[None]:
        """Speak with this adapter. First come, first served: nobody overtakes one who waits for a switch."""
        async with self._door:
            wanted = [self._served[adapter]] if adapter else []
            if await self._active() != wanted:
                await self._silence.wait()
                await self._switch(wanted)
            self._speaking += 1
            self._silence.clear()
        try:
            yield
        finally:
            self._speaking -= 1
            if not self._speaking:
                self._silence.set()

    async def _switch(self, wanted: list[str]) -> None:
        path = "/v1/internal/lora/load" if wanted else "/v1/internal/lora/unload"
        try:
            await self._wire.post(path, {"lora_names": wanted} if wanted else {}, seconds=self._limits.total)
        except Refused as refusal:
            raise GenerationFailed(
                f"The engine at {self._wire.url} did not switch to {wanted or 'its base model'}: {refusal.message}"
            ) from refusal

    async def _active(self) -> list[str]:
        try:
            told = (await self._wire.get("/v1/internal/model/info")).json()
            return [str(name) for name in told["lora_names"]]
        except Refused as refusal:
            raise GenerationFailed(f"The engine at {self._wire.url} refused: {refusal.message}") from refusal
        except (ValueError, KeyError, TypeError) as error:
            raise EngineDown(
                f"At {self._wire.url} something answers that is not text-generation-webui."
            ) from error

    async def _find(self, name: str, folder: Path) -> str:
        try:
            offered = (await self._wire.get("/v1/internal/lora/list")).json().get("lora_names") or []
        except Refused as refusal:
            raise AdapterError(
                f"The engine did not list its adapters: {refusal.message}. Give its admin key as "
                "model.api_key.",
                field="model.api_key",
            ) from refusal
        found = next((one for one in (name, role_of(name), folder.name) if one in offered), None)
        if found is None:
            raise AdapterError(
                f"The engine does not have '{name}': its loras folder holds {offered or 'nothing'}. Copy {folder} "
                f"there as {role_of(name)}.",
                field="adapter",
                value=name,
            )
        return str(found)


def _nothing() -> None:
    """It is asked before every answer which adapter is active."""
