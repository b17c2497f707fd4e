"""What other processes have done, taken over here: runs by the worker, memories and lessons by ourselves."""

import asyncio
from dataclasses import dataclass, field

from agentflow.records.feedback import Feedback
from agentflow.records.memory.scopes import Scopes
from agentflow.records.signals import LESSONS, SETS_GONE
from agentflow.routing.intents import Intents
from agentflow.runs.worker import Worker


@dataclass
class News:
    """Hears the signals of a database. `process` is our own name: what we did ourselves is no news.

    `due` is set when lessons are to be taken over; a correction that was forgotten then leaves our files too.
    """

    process: str
    worker: Worker
    scopes: Scopes
    feedback: Feedback
    classifier: Intents
    due: asyncio.Event = field(default_factory=asyncio.Event)
    _forgotten: bool = False

    def heard(self, kind: str, which: str, extra: str) -> None:
        """Take a signal."""
        if kind == SETS_GONE:
            self.scopes.known.clear()
        elif kind != LESSONS:
            self.worker.heard(kind, which, extra)
        elif extra != self.process:
            self._forgotten |= which == "forgotten"
            self.due.set()

    def missed(self) -> None:
        """Anything may have happened."""
        self.worker.wakes.everybody()
        self.scopes.known.clear()
        self.due.set()

    async def relearn(self) -> None:
        """Take over what feedback has taught since. Raises DatabaseDown, EmbedderError."""
        lessons = await self.feedback.lessons()
        forgotten, self._forgotten = self._forgotten, False
        try:
            if forgotten or not set(self.classifier.lessons) <= set(lessons):
                await self.classifier.unlearn(lessons)
            elif self.classifier.lessons != tuple(lessons):
                await self.classifier.learn(lessons)
        except BaseException:
            self._forgotten |= forgotten
            raise
