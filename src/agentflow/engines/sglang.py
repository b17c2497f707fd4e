"""The driver of an SGLang server, started with --enable-lora."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from agentflow.errors import AdapterError, EngineDown, EngineError, GenerationFailed, NoRoom
from agentflow.protocols import Capabilities, EngineTier, Health, Loaded, Piece, Prompt
from agentflow.speech import chat
from agentflow.speech.names import Names, no_host_tier
from agentflow.speech.wire import Refused, Timeouts, Wire
from agentflow.turn import Json


class Sglang:
    """`slots` is the server's --max-loras-per-batch: one slot must stay unpinned.

    The server tells its adapters only in the answer to a load or unload, so what is loaded is our own ledger.
    The folders given to `load` must be visible to the server under the same path.
    """

    name = "sglang"
    capabilities = Capabilities(
        runtime_load=True,
        unload_frees=True,
        pin=True,
        exact_list=False,
        mixed_batch=True,
        tools=True,
        structured=True,
    )

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        slots: int | None = None,
    ) -> None:
        self._limits = timeouts or Timeouts()
        self._wire = Wire(url, api_key, self._limits, self._lost)
        self._names = Names(self._wire.url)
        self._slots = slots
        self._pinned: set[str] = set()
        self._base: str | None = None
        self._loading = asyncio.Lock()
        self._wanted: dict[str, Path] = {}
        self.restarts = 0

    async def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece, None]:
        """An adapter that a restarted server has forgotten is loaded again, once."""
        for retry in (True, False):
            await self._ready(adapter)
            try:
                async with aclosing(chat.answer(self._wire, await self._body(prompt, adapter))) as pieces:
                    async for piece in pieces:
                        yield piece
            except Refused as refusal:
                if not (retry and adapter and _is_forgotten(refusal)):
                    raise chat.refused(self._wire.url, refusal, adapter) from refusal
                self._lost()
            else:
                return

    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None:
        """Register and hear one token. Raises AdapterError, EngineError."""
        no_host_tier("SGLang", tier)
        async with self._loading:
            if self._names.has(name, folder):
                return
            await self._load(name, folder, pinned=False)
            try:
                await chat.listened(chat.answer(self._wire, await self._body(chat.ONE_TOKEN, name)))
            except (Refused, GenerationFailed) as error:
                await self._unload(name)
                raise AdapterError(
                    f"The engine took '{name}' but does not answer with it: {error}",
                    field="adapter",
                    value=name,
                ) from error
            self._names.add(name, folder)
            self._wanted[name] = folder

    async def unload(self, name: str) -> None:
        """The server waits for the adapter's own answers first."""
        async with self._loading:
            self._wanted.pop(name, None)
            self._names.drop(name)
            self._pinned.discard(name)
            await self._unload(name)

    async def pin(self, name: str) -> None:
        """SGLang pins at load time: the adapter is taken out and loaded anew. Raises NoRoom, AdapterError."""
        if name in self._pinned:
            return
        if self._slots is not None and len(self._pinned) >= self._slots - 1:
            raise NoRoom(
                f"'{name}' cannot be pinned: {len(self._pinned)} adapters are, and one of the {self._slots} slots "
                "must stay free. Unpin one, or raise --max-loras-per-batch and model.slots.",
                field="pin",
                value=name,
            )
        await self._reload(name, pinned=True)
        self._pinned.add(name)

    async def unpin(self, name: str) -> None:
        if name in self._pinned:
            self._pinned.discard(name)
            await self._reload(name, pinned=False)

    async def loaded(self) -> Sequence[Loaded]:
        return [Loaded(name, "vram", exact=False, pinned=name in self._pinned) for name in self._names.loaded]

    async def health(self) -> Health:
        try:
            await self._wire.get("/health")
            base = await self._base_name()
        except EngineError as error:
            return Health(ok=False, detail=error.message)
        return Health(ok=True, detail=f"SGLang at {self._wire.url} with {base}")

    async def close(self) -> None:
        await self._wire.close()

    def _lost(self) -> None:
        self._base = None
        self._pinned.clear()
        self.restarts += bool(self._names.forget())

    async def _ready(self, adapter: str | None) -> None:
        if adapter is None or adapter in self._names.loaded:
            return
        if adapter not in self._wanted:
            raise self._names.missing(adapter)
        try:
            await self.load(adapter, self._wanted[adapter])
        except AdapterError as error:
            raise GenerationFailed(
                f"The engine lost '{adapter}' and did not take it again: {error}"
            ) from error

    async def _reload(self, name: str, *, pinned: bool) -> None:
        async with self._loading:
            if name not in self._names.loaded:
                raise AdapterError(
                    f"adapter: '{name}' is not loaded: load it first.", field="adapter", value=name
                )
            await self._unload(name)
            await self._load(name, self._names.folder(name), pinned=pinned)

    async def _load(self, name: str, folder: Path, *, pinned: bool) -> None:
        body = {"lora_name": name, "lora_path": str(folder), "pinned": pinned}
        try:
            answer = (await self._wire.post("/load_lora_adapter", body, seconds=self._limits.total)).json()
        except Refused as refusal:
            raise _load_error(name, folder, refusal.message) from refusal
        if not answer.get("success", True):
            raise _load_error(name, folder, str(answer.get("error_message")))

    async def _unload(self, name: str) -> None:
        try:
            await self._wire.post("/unload_lora_adapter", {"lora_name": name}, seconds=self._limits.total)
        except Refused as refusal:
            if refusal.status not in (400, 404):  # it does not know the name
                raise AdapterError(f"The engine did not unload '{name}': {refusal.message}") from refusal

    async def _body(self, prompt: Prompt, adapter: str | None) -> Json:
        base = await self._base_name()
        return chat.body(prompt, f"{base}:{adapter}" if adapter else base)

    async def _base_name(self) -> str:
        if self._base is None:
            try:
                rows = (await self._wire.get("/v1/models")).json()["data"]
                self._base = next(str(row["id"]) for row in rows if not row.get("parent"))
            except (ValueError, KeyError, TypeError, StopIteration) as error:
                raise EngineDown(f"At {self._wire.url} something answers that is not SGLang.") from error
        return self._base


def _is_forgotten(refusal: Refused) -> bool:
    return refusal.status in (400, 404) and "lora" in refusal.message.lower()


def _load_error(name: str, folder: Path, reason: str) -> AdapterError:
    return AdapterError(
        f"The engine did not load '{name}' from {folder}: {reason}. Start SGLang with --enable-lora, --max-lora-rank "
        "and --lora-target-modules all, and let it see the folder under the same path.",
        field="adapter",
        value=name,
    )
