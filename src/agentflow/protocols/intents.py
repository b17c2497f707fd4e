"""What a message is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentflow.turn import Json


@dataclass(frozen=True)
class Message:
    """What the classifier looks at: the text and the turns before it, newest last."""

    text: str
    previous: Sequence[str] = ()
    role: str | None = None


class Classifier(Protocol):
    """Text to intent. Raises EmbedderError."""

    async def classify(self, message: Message) -> Json:
        """{"ranking": [{"role", "score"}, ...] best first, "in_scope": bool, ...what explains it}."""
        ...
