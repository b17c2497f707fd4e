"""An engine in memory, for unit tests."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from copy import copy
from pathlib import Path

from agentflow.errors import AdapterError, EngineDown, EngineError, GenerationFailed
from agentflow.fakes.calls import called, deltas, structured
from agentflow.fakes.voices import answer, clipped, tokens
from agentflow.protocols import Capabilities, EngineTier, Health, Loaded, Piece, Prompt


class FakeEngine:
    """Speaks as `voices.answer` says, and refuses to speak for an adapter that is not loaded.

    `calls` records ("load", name), ("unload", name), ("pin", name), ("unpin", name), ("generate", name or
    None), ("cancel", name or None). `forget` is a restart: all adapters are lost.
    `delay` and `load_delay` are seconds per piece and per load; a `gate` holds every piece back until it is
    set. `failure` and `load_failure` are raised instead of working. `check_files` False takes any folder.
    """

    name = "fake"
    capabilities = Capabilities(
        runtime_load=True,
        unload_frees=True,
        pin=True,
        exact_list=True,
        mixed_batch=True,
        host_tier=True,
        tools=True,
        structured=True,
    )

    def __init__(
        self,
        *,
        delay: float = 0,
        load_delay: float = 0,
        gate: asyncio.Event | None = None,
        check_files: bool = True,
    ) -> None:
        self.delay = delay
        self.load_delay = load_delay
        self.gate = gate
        self.failure: EngineError | None = None
        self.load_failure: AdapterError | EngineError | None = None
        self.calls: list[tuple[str, str | None]] = []
        self.prompts: list[Prompt] = []
        self.running = 0
        self.folders: dict[str, Path] = {}
        self.tiers: dict[str, EngineTier] = {}
        self.pinned: set[str] = set()
        self.restarts = 0
        self._check_files = check_files
        self._closed = False

    async def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece, None]:
        self.calls.append(("generate", adapter))
        self.prompts.append(prompt)
        if self._closed:
            raise EngineDown("The engine has been closed.")
        if adapter is not None and self.tiers.get(adapter) != "vram":
            raise GenerationFailed(f"adapter: '{adapter}' is not loaded.", field="adapter", value=adapter)
        calls = called(prompt.messages, prompt.tools, prompt.tool_choice)
        text = "" if calls else answer(adapter or "base", prompt.messages)
        text = structured(text, prompt.response_format)
        words, finish = clipped(text, max_tokens=prompt.max_tokens, stop=prompt.stop)
        self.running += 1
        try:
            for word in words:
                await self._pause()
                yield Piece(word)
            for delta in deltas(calls):
                await self._pause()
                yield Piece("", tool_calls=(delta,))
            asked = sum(len(tokens(message["content"])) for message in prompt.messages)
            finish = "tool_calls" if calls else finish
            yield Piece("", finish, {"prompt_tokens": asked, "completion_tokens": len(words)})
        except GeneratorExit:
            self.calls.append(("cancel", adapter))
            raise
        finally:
            self.running -= 1

    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None:
        self.calls.append(("load", name))
        await asyncio.sleep(self.load_delay)
        if self.load_failure:
            raise copy(self.load_failure)  # as an engine does: each refusal is one of its own
        if self.folders.get(name, folder) != folder:
            raise AdapterError(
                f"adapter: '{name}' was loaded from another folder.", field="adapter", value=name
            )
        if self._check_files and not (folder / "adapter_config.json").is_file():
            raise AdapterError(f"adapter: no adapter in {folder}.", field="adapter", value=name)
        self.folders[name] = folder
        self.tiers[name] = tier

    async def unload(self, name: str) -> None:
        self.calls.append(("unload", name))
        self._drop(name)

    async def pin(self, name: str) -> None:
        self.calls.append(("pin", name))
        if self.tiers.get(name) != "vram":
            raise AdapterError(f"adapter: '{name}' is not loaded.", field="adapter", value=name)
        self.pinned.add(name)

    async def unpin(self, name: str) -> None:
        self.calls.append(("unpin", name))
        self.pinned.discard(name)

    async def loaded(self) -> Sequence[Loaded]:
        return [
            Loaded(name, tier, exact=True, pinned=name in self.pinned) for name, tier in self.tiers.items()
        ]

    def forget(self) -> None:
        """As a restart does."""
        self.restarts += 1
        for name in list(self.folders):
            self._drop(name)

    def _drop(self, name: str) -> None:
        self.folders.pop(name, None)
        self.tiers.pop(name, None)
        self.pinned.discard(name)

    async def health(self) -> Health:
        return (
            Health(ok=False, detail=self.failure.message) if self.failure else Health(ok=True, detail="fake")
        )

    async def close(self) -> None:
        self.calls.append(("close", None))
        self._closed = True

    async def _pause(self) -> None:
        if self.gate:
            await self.gate.wait()
        await asyncio.sleep(self.delay)
        if self.failure:
            raise self.failure
