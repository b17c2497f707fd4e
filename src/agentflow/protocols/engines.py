"""What an engine is asked, and what it can do."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from agentflow.prompt import ChatMessage
from agentflow.turn import Json, Usage


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; the residency keeper asks these, never engine names.

    `runtime_load` False: adapters are those it was started with. `host_tier`: `load` can rest an adapter in
    RAM. `merge`: one answer can mix several adapters. `opens_folders`: it reads the folder that `load` names, and
    again later, so a copy in memory makes it faster.
    """

    runtime_load: bool
    unload_frees: bool
    pin: bool
    exact_list: bool
    mixed_batch: bool
    merge: bool = False
    host_tier: bool = False
    opens_folders: bool = True
    tools: bool = False
    structured: bool = False


@dataclass(frozen=True)
class Prompt:
    """One generation. `max_tokens` bounds the answer; `temperature` 0 is greedy.

    `tools`, `tool_choice` and `response_format` are OpenAI's, for engines whose capabilities name them.
    """

    messages: Sequence[ChatMessage]
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tools: Sequence[Json] = ()
    tool_choice: str | Json | None = None
    response_format: Json | None = None


@dataclass(frozen=True)
class Piece:
    """A piece of an answer. The last piece has `finish` ("stop", "length" or "tool_calls") and `usage`.

    `tool_calls` are deltas in OpenAI's form: `index` says which call grows.
    """

    text: str
    finish: str | None = None
    usage: Usage | None = None
    tool_calls: Sequence[Json] = ()


@dataclass
class Said:
    """An answer as its pieces add up."""

    texts: list[str] = field(default_factory=list)
    deltas: dict[int, Json] = field(default_factory=dict)
    finish: str | None = None
    usage: Usage | None = None

    def hear(self, piece: Piece) -> None:
        """Add a piece."""
        self.texts.append(piece.text)
        self.finish, self.usage = piece.finish or self.finish, piece.usage or self.usage
        for delta in piece.tool_calls:
            function = delta.get("function") or {}
            fresh = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            call = self.deltas.setdefault(delta.get("index", 0), fresh)
            call["id"] = delta.get("id") or call["id"]
            call["function"]["name"] += function.get("name") or ""
            call["function"]["arguments"] += function.get("arguments") or ""

    def calls(self) -> list[Json]:
        """The tool calls, whole, in OpenAI's form."""
        return [self.deltas[index] for index in sorted(self.deltas)]


EngineTier = Literal["vram", "ram"]


@dataclass(frozen=True)
class Loaded:
    """An adapter the engine holds. `exact` is False where the engine cannot tell and we infer it."""

    name: str
    tier: EngineTier
    exact: bool
    pinned: bool = False


@dataclass(frozen=True)
class Health:
    """`ok`, and a sentence for people."""

    ok: bool
    detail: str


class Engine(Protocol):
    """A model with LoRA adapters.

    `generate` raises EngineDown, EngineTimeout or GenerationFailed; the last also for an adapter that
    is not loaded. Closing the iterator cancels the generation.

    `load` returns once the adapter has answered a request of one token, raises AdapterError and leaves the
    engine alive; afterwards the adapter is in `tier`, which moves one that is in the other ("ram" needs
    `host_tier`). Loading a loaded name with the same path changes nothing. `pin` keeps a loaded adapter in
    its slot until `unpin` or `unload`: AdapterError where the engine cannot, NoRoom when the others would
    have no slot left. `restarts` counts how often the engine was seen to have lost everything: what was
    loaded and pinned before must be loaded and pinned again.
    """

    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def restarts(self) -> int: ...
    def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece]: ...
    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None: ...
    async def unload(self, name: str) -> None: ...
    async def pin(self, name: str) -> None: ...
    async def unpin(self, name: str) -> None: ...
    async def loaded(self) -> Sequence[Loaded]: ...
    async def health(self) -> Health: ...
    async def close(self) -> None: ...
