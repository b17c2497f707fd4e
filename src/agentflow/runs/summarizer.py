"""Old sessions condensed while nothing else happens: off the answering path, and off unless it is wanted.

A summary is a memory of its own that points to the turns it was made from and replaces none of them; it is forgotten
with any of them. What was said goes to the model as quotations.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from agentflow.prompt import ChatMessage, Quote, chat_messages
from agentflow.protocols import Engine, Prompt
from agentflow.records.memory.summaries import Said, Summaries
from agentflow.retrieval.origin import spoken
from agentflow.retrieval.pieces import pieces, tokens

WINDOW = 1200  # tokens of conversation per summary
LONGEST = 200
ORDER = (
    "You condense conversations. Write two to five sentences in the conversation's language: who wants, likes, has or "
    "decided what, with names, numbers and dates. No introduction."
)


@dataclass(frozen=True)
class Summarizer:
    """One session at a time, by the base model; stops as soon as the engine is wanted for a turn."""

    summaries: Summaries
    engine: Engine
    idle: Callable[[], bool]

    async def sum_up(self) -> int:
        """Condense sessions while there are any and nothing else happens; returns how many summaries were written.

        Raises DatabaseDown, EngineError.
        """
        written = 0
        while self.idle() and (session := await self.summaries.due()) is not None:
            told: list[tuple[str, Sequence[Said]]] = []
            for window in windows(await self.summaries.said(session)):
                text = await self._condensed(window)
                if text is None:
                    return written
                told.append((text, window))
            if not told or not await self.summaries.write(session, told):
                return written
            written += len(told)
        return written

    async def _condensed(self, said: Sequence[Said]) -> str | None:
        """The summary of a window; None when a turn wants the engine, or the model has nothing to say."""
        texts: list[str] = []
        async with aclosing(self.engine.generate(_prompt(said), adapter=None)) as parts:
            async for part in parts:
                texts.append(part.text)
                if not self.idle():
                    return None
        found = pieces(spoken("".join(texts)))
        return found[0] if found else None


def windows(said: Sequence[Said]) -> list[list[Said]]:
    """A session in stretches that a small model reads whole."""
    found: list[list[Said]] = []
    left = 0
    for one in said:
        cost = tokens(one.content)
        if not found or cost > left:
            found.append([])
            left = WINDOW
        found[-1].append(one)
        left -= cost
    return found


def _prompt(said: Sequence[Said]) -> Prompt:
    quotes: list[Quote] = [
        {"speaker": one.speaker, "day": one.said_at.date().isoformat(), "content": one.content}
        for one in said
    ]
    messages: list[ChatMessage] = chat_messages(
        system=ORDER, quotes=quotes, history=[], text="Condense this conversation."
    )
    return Prompt(messages=messages, max_tokens=LONGEST)
