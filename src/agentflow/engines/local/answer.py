"""One answer being made: its tokens, its text, and the way to whoever asked."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agentflow.engines.local.sampling import Sampler
from agentflow.engines.local.text import Detokeniser, StopWatch
from agentflow.errors import AgentflowError
from agentflow.protocols import Piece, Prompt
from agentflow.turn import Usage

Item = Piece | AgentflowError
BASE_VOICE = "__base__"
"""What PEFT calls rows without an adapter."""


@dataclass(eq=False)
class Answer:
    """Made in the event loop, spoken to by the decoding thread. `cancelled` may be set from either side."""

    prompt: Prompt
    adapter: str | None
    loop: asyncio.AbstractEventLoop
    items: asyncio.Queue[Item] = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    finished: bool = False
    voice: str = BASE_VOICE

    def begin(self, tokens: Sequence[int], limit: int, decode: Callable[[Sequence[int]], str]) -> None:
        """`tokens` is the encoded prompt, `limit` how many may follow."""
        self.tokens = tokens
        self.last = -1
        self.spoken = 0
        self._limit = limit
        self._text = Detokeniser(decode)
        self._stops = StopWatch(self.prompt.stop)
        self.sampler = _sampler(self.prompt)

    def hear(self, token: int, ends: frozenset[int]) -> None:
        """Take the next token; sets `finished` after the last."""
        self.last = token
        self.spoken += 1
        if token in ends:
            self._finish("stop", self._stops.feed(self._text.flush()) + self._rest())
            return
        text = self._stops.feed(self._text.feed(token))
        if self._stops.hit:
            self._finish("stop", text)
        elif self.spoken >= self._limit:
            self._finish("length", text + self._stops.feed(self._text.flush()) + self._rest())
        elif text:
            self._send(Piece(text))

    def fail(self, error: AgentflowError) -> None:
        self.finished = True
        self._send(error)

    def _rest(self) -> str:
        return "" if self._stops.hit else self._stops.flush()

    def _finish(self, reason: str, text: str) -> None:
        self.finished = True
        if text:
            self._send(Piece(text))
        usage: Usage = {"prompt_tokens": len(self.tokens), "completion_tokens": self.spoken}
        self._send(Piece("", reason, usage))

    def _send(self, item: Item) -> None:
        try:
            self.loop.call_soon_threadsafe(self.items.put_nowait, item)
        except RuntimeError:
            self.cancelled = True  # the event loop is closed: nobody listens


def _sampler(prompt: Prompt) -> Sampler | None:
    if prompt.temperature <= 0:
        return None
    return Sampler(temperature=prompt.temperature, top_p=prompt.top_p, seed=prompt.seed)
