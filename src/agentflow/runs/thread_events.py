"""A thread's numbered events for newer clients, told from the streams of its runs.

An event's number follows from its run's place in the thread and the run's own numbers, so that every process gives
the same event the same number, and `since` means the same everywhere.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from agentflow.protocols import Owner
from agentflow.records.protocol.listeners import RunInThread
from agentflow.runs.events import Event
from agentflow.runs.telling import Telling
from agentflow.runs.thread_stream import Part, Place, ThreadStreams
from agentflow.turn import Json

RUN_BITS, SLOT_BITS = 33, 10
"""A number: the run's place in the thread, 23 bits for the event in the run, 10 for what that has become."""
FAILED = 3


async def told(
    streams: ThreadStreams, owner: Owner, thread_id: str, after: int, *, idle: float
) -> AsyncIterator[Json | None]:
    """Events with numbers above `after`; with 0 those of the running run, or else the last. None: nothing for long.

    A run is read from its beginning, because its messages are told from there. Raises Behind.
    """
    place = Place(after >> RUN_BITS) if after else await streams.latest(owner, thread_id)
    run: RunEvents | None = None
    async for part in streams.follow(owner, thread_id, place, idle=idle):
        if part is None:
            yield None
            continue
        if run is None or run.run.run_id != part.run.run_id:
            run = RunEvents(part.run)
        for event in run.of(part):
            if event["seq"] > after:
                yield event


def before(place: int) -> int:
    """The number below all events of the run at a place."""
    return (place << RUN_BITS) - 1


@dataclass
class RunEvents:
    """One run's events, numbered, from its beginning to its end."""

    run: RunInThread
    clock: Callable[[], float] = time.time
    telling: Telling = field(default_factory=Telling)
    seen: int = 0
    interrupted: bool = False
    interrupts: list[Json] = field(default_factory=list)

    def of(self, part: Part) -> Iterator[Json]:
        """What a part comes to."""
        if part.ended:
            yield from self._end(part.run)
        elif not part.events:
            yield self._lifecycle(0, "running")
            if part.run.answers:
                yield self._numbered(0, 1, "input.answered", {"interrupt_ids": list(part.run.answers)})
        for event in part.events:
            yield from self._event(event)

    def _event(self, event: Event) -> Iterator[Json]:
        self.seen, data = event.seq, orjson.loads(event.data)
        if event.name == "updates" and isinstance(data, dict) and "__interrupt__" in data:
            self.interrupted = True
            self.interrupts += data["__interrupt__"]
        for slot, (method, names, one) in enumerate(self.telling.hear(event.name, data)):
            yield self._numbered(event.seq, slot, method, one, names, event.at)

    def _end(self, run: RunInThread) -> Iterator[Json]:
        how = "failed" if run.status == FAILED else "interrupted" if self.interrupted else "completed"
        closing = list(self.telling.ended(how))
        for one in self.interrupts:
            data = {"interrupt_id": one.get("id"), "value": one.get("value"), "payload": one.get("value")}
            closing.append(("input.requested", [], data))
        for slot, (method, names, data) in enumerate(closing):
            yield self._numbered(self.seen + 1, slot, method, data, names)
        error = {"error": (run.error or {}).get("message")} if run.status == FAILED else {}
        yield self._lifecycle(self.seen + 2, how, **error)

    def _lifecycle(self, at: int, event: str, **more: Any) -> Json:
        """Clients learn a run's id from the id of an event that begins or ends it."""
        data = {"event": event, **more, "graph_name": self.run.graph, "run_id": self.run.run_id}
        told = self._numbered(at, 0, "lifecycle", data)
        return {**told, "event_id": f"synth:{self.run.run_id}:{told['seq']}"}

    def _numbered(
        self, event: int, slot: int, method: str, data: Any, names: list[str] | None = None, at: int = 0
    ) -> Json:
        seq = self.run.place << RUN_BITS | event << SLOT_BITS | slot
        params = {"namespace": names or [], "timestamp": at or int(self.clock() * 1000), "data": data}
        name = f"{self.run.thread_id}-{seq}"
        return {"type": "event", "event_id": name, "seq": seq, "method": method, "params": params}
