"""The engine behind the double's doors: names, slots, what runs, and how it dies."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentflow.fakes.vllm.files import read
from agentflow.fakes.vllm.options import Options
from agentflow.fakes.vllm.refusal import Refusal
from agentflow.fakes.vllm.slots import FilesGoneError, PinnedError, Slots

DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class Double:
    """The server's state. One engine: a load holds up every token meanwhile, as in vLLM."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.slots = Slots(options.max_loras, options.max_cpu_loras)
        self.registry: dict[str, tuple[int, Path]] = {}
        self.running: list[int | None] = []
        self.dead = False
        self.when_dead: Callable[[], None] = lambda: None
        self._voices: dict[int, str] = {}
        self._engine = asyncio.Lock()
        self._scheduler = asyncio.Condition()

    def change(self, **changes: Any) -> None:
        self.options = replace(self.options, **changes)

    def restart(self) -> None:
        """A new process: names, weights, pins and ids are gone."""
        self.slots = Slots(self.options.max_loras, self.options.max_cpu_loras)
        self.registry.clear()
        self._voices.clear()

    # --- adapters

    async def load(self, name: str, folder: Path) -> None:
        """Into host cache and slot, under a new id. Raises Refusal."""
        lora_id = self.slots.new_id()
        async with self._engine:
            await asyncio.sleep(self.options.load)
            read(name, folder, self.options.max_lora_rank)
            try:
                self.slots.activate(lora_id, folder)
            except PinnedError as error:
                raise Refusal(500, "InternalServerError", "All items are pinned") from error
        self.registry[name] = (lora_id, folder)
        self._voices[lora_id] = name

    def lora_of(self, model: str) -> int | None:
        """None for the base; raises Refusal."""
        if model == self.options.base:
            return None
        if model not in self.registry:
            message = f"The model `{model}` does not exist. Valid aliases: {self.options.base}."
            raise Refusal(404, "NotFoundError", message, "model")
        return self.registry[model][0]

    def folder_of(self, model: str) -> Path:
        return self.registry[model][1] if model in self.registry else Path()

    # --- what runs

    @asynccontextmanager
    async def admitted(self, lora_id: int | None, folder: Path) -> AsyncGenerator[None, None]:
        """Run beside at most `max_loras` different adapters; others are held back until a place is free."""
        async with self._scheduler:
            await self._scheduler.wait_for(lambda: self._has_place(lora_id))
            if lora_id is not None:
                self._activate(lora_id, folder)
            self.running.append(lora_id)
        try:
            yield
        finally:
            self.running.remove(lora_id)
            await self._wake_scheduler()

    def _has_place(self, lora_id: int | None) -> bool:
        busy = {known for known in self.running if known is not None}
        return lora_id is None or lora_id in busy or len(busy) < self.slots.size

    async def _wake_scheduler(self) -> None:
        async with self._scheduler:
            self._scheduler.notify_all()

    def _activate(self, lora_id: int, folder: Path) -> None:
        try:
            self.slots.activate(lora_id, folder)
        except (FilesGoneError, PinnedError) as error:
            self.die()
            raise Refusal(500, "InternalServerError", DEAD) from error

    def die(self) -> None:
        """The engine process ends; the server follows a moment later."""
        self.dead = True
        asyncio.get_running_loop().call_later(self.options.death, self.when_dead)

    def voice(self, lora_id: int | None) -> str:
        """Who speaks."""
        return (self._mixed_up() if lora_id is None else self._voices[lora_id]) or "base"

    def speakers(self) -> list[str]:
        """The adapters of what runs."""
        return sorted({self._voices[lora] for lora in self.running if lora})

    def _mixed_up(self) -> str | None:
        """The voice a base request gets beside adapters when the last slot is taken (index -1 wraps)."""
        last = self.slots.in_slots[-1]
        beside_adapters = any(lora is not None for lora in self.running)
        return self._voices[last] if self.options.mixes_up_base and beside_adapters and last else None

    async def spoken(
        self, words: list[str], until: Callable[[], Awaitable[bool]] | None = None
    ) -> AsyncGenerator[str, None]:
        """The words in their time."""
        await asyncio.sleep(self.options.first_token)
        while self.options.hang and not (until and await until()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # `hang` is switched from other threads
        for word in words:
            rate = self.options.tokens_per_second
            await asyncio.sleep(1 / rate if rate else 0)
            async with self._engine:
                if self.dead:
                    raise Refusal(500, "InternalServerError", DEAD)
            yield word
