"""The engine's face to the event loop. Torch is imported by its thread, at the first use."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agentflow.engines.local.answer import Answer
from agentflow.engines.local.decoder import Close, Decoder
from agentflow.engines.local.voices import Load, Unload
from agentflow.errors import AdapterError, AgentflowError, EngineDown, GenerationFailed
from agentflow.protocols import Capabilities, EngineTier, Health, Loaded, Piece, Prompt
from agentflow.speech.chat import ONE_TOKEN

if TYPE_CHECKING:
    from agentflow.engines.local.model import Model


@dataclass(frozen=True)
class Machine:
    """Where the model runs. `threads` counts CPU threads of torch; more than a few only spin."""

    device: str
    dtype: str
    threads: int


class LocalEngine:
    """A base model (folder or hub id) and LoRA adapters in this process, several of them in one batch.

    `batch` answers are given at once, more wait. `device` is auto, cpu or cuda; `dtype` auto means float32
    on a CPU and bfloat16 on a GPU. `thinking` is passed to the chat template where the model knows it
    (Qwen3). What is loaded is ready to answer at once and counts as "vram" on a CPU too.
    The first use raises StartError without the extra `local`, ConfigError when the base cannot be read.
    """

    name = "local"
    capabilities = Capabilities(
        runtime_load=True, unload_frees=True, pin=True, exact_list=True, mixed_batch=True, host_tier=True
    )
    restarts = 0

    def __init__(
        self,
        base: Path | str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        max_batch: int = 8,
        thinking: bool | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._base = str(base)
        self._machine = Machine(device, dtype, threads or min(4, os.cpu_count() or 1))
        self._max_batch = max_batch
        self._thinking = thinking
        self._progress = progress
        self._decoder: Decoder | None = None
        self._closed = False
        self._pinned: set[str] = set()

    @property
    def running(self) -> int:
        """Answers that wait or are being given."""
        return self._decoder.running if self._decoder else 0

    async def start(self) -> None:
        """Load the base model now instead of at the first use."""
        await self._ready()

    async def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece, None]:
        decoder = await self._ready()
        answer = Answer(prompt, adapter, asyncio.get_running_loop())
        decoder.post(answer)
        try:
            while True:
                item = await answer.items.get()
                if isinstance(item, AgentflowError):
                    raise item
                yield item
                if item.finish:
                    return
        finally:
            answer.cancelled = True

    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None:
        """To "ram" are tensors on the CPU, to "vram" layers of the model on its device."""
        decoder = await self._ready()
        speaking = decoder.voices.speaking.get(name)
        if tier == "vram" and speaking is not None and speaking.folder == folder:
            return
        done: Future[None] = Future()
        decoder.post(Load(name, folder, tier, done))
        await asyncio.shield(asyncio.wrap_future(done))
        if tier == "vram":
            await self._heard(name)
        else:
            self._pinned.discard(name)

    async def unload(self, name: str) -> None:
        """Free the adapter once its answers are given; new ones are refused at once."""
        self._pinned.discard(name)
        if self._decoder is None:
            return
        decoder = await self._ready()
        done: Future[None] = Future()
        decoder.post(Unload(name, done))
        await asyncio.shield(asyncio.wrap_future(done))

    async def pin(self, name: str) -> None:
        """Nothing leaves this engine unless it is told to: a pin is a note."""
        if self._decoder is None or name not in self._decoder.voices.speaking:
            raise AdapterError(
                f"adapter: '{name}' is not loaded: load it first.", field="adapter", value=name
            )
        self._pinned.add(name)

    async def unpin(self, name: str) -> None:
        self._pinned.discard(name)

    async def loaded(self) -> Sequence[Loaded]:
        if self._decoder is None:
            return []
        voices = self._decoder.voices
        awake = [Loaded(name, "vram", True, name in self._pinned) for name in list(voices.speaking)]
        return [*awake, *(Loaded(name, "ram", exact=True) for name in list(voices.resting))]

    async def health(self) -> Health:
        """A model that has not been needed yet is healthy."""
        if self._closed:
            return Health(ok=False, detail="The local engine has been closed.")
        if self._decoder is None:
            return Health(ok=True, detail=f"{self._base}, loaded at the first use")
        if not self._decoder.opened.done():
            return Health(ok=True, detail=f"{self._base} is being loaded")
        fault = self._decoder.opened.exception() or self._decoder.ended
        return Health(ok=fault is None, detail=str(fault) if fault else f"{self._base} in this process")

    async def close(self) -> None:
        """Answers under way fail; the thread has ended when this returns."""
        self._closed = True
        decoder = self._decoder
        if decoder is None or not decoder.is_alive():
            return
        if not decoder.ended:
            decoder.post(Close())
        await asyncio.to_thread(decoder.join)

    async def _heard(self, name: str) -> None:
        try:
            async for _ in self.generate(ONE_TOKEN, adapter=name):
                pass
        except GenerationFailed as error:
            await self.unload(name)
            raise AdapterError(
                f"adapter: '{name}' was read but does not answer: {error}", field="adapter", value=name
            ) from error

    async def _ready(self) -> Decoder:
        """The running decoder; one that could not open its model is tried again."""
        if self._closed:
            raise EngineDown("The local engine has been closed: agentflow is shutting down.")
        if self._decoder is None or _failed_to_open(self._decoder):
            self._decoder = Decoder(self._open_model, self._max_batch)
            self._decoder.start()
        decoder = self._decoder
        await asyncio.shield(asyncio.wrap_future(decoder.opened))
        return decoder

    def _open_model(self) -> "Model":
        """Runs in the decoder's thread: importing torch takes seconds."""
        if self._progress:
            self._progress(f"loading the base model {self._base}")
        from agentflow.engines.local.model import Choice, Model  # noqa: PLC0415 - torch only when needed

        machine = self._machine
        return Model(Choice(self._base, machine.device, machine.dtype, machine.threads, self._thinking))


def _failed_to_open(decoder: Decoder) -> bool:
    return decoder.opened.done() and decoder.opened.exception() is not None
