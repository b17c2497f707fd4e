"""Waiting for a turn that another process works on."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from agentflow.api.keys import Caller
from agentflow.api.turns import ended
from agentflow.protocols import RunRecord, RunStatus
from agentflow.runs.feed import Feed
from agentflow.runs.wakes import Wakes

RUN = "0199f9b2-7a62-7cc0-8000-000000000001"


@dataclass
class Elsewhere:
    """What the door sees of a turn of another process: services, worker, ledger and runs in one."""

    status: RunStatus = "running"
    asked: int = 0
    signals: asyncio.Event = field(default_factory=asyncio.Event)
    wakes: Wakes = field(default_factory=Wakes)
    feeds: dict[str, Feed] = field(default_factory=dict)

    @property
    def itself(self) -> "Elsewhere":
        return self

    worker = ledger = served = runs = itself

    async def find(self, run_id: str, **_: object) -> RunRecord:
        self.asked += 1
        return RunRecord(run_id, RUN, 0, self.status, 1, b"", None, None, datetime.now(UTC))

    async def watch(self, run_id: str, *, tenant: int) -> bool:
        self.signals.set()
        return True


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
async def test_who_waits_is_woken_by_the_end_and_not_by_looking(end: RunStatus) -> None:
    turn = Elsewhere()
    waiting = asyncio.create_task(ended(RUN, Caller(), turn, within=60))
    await turn.signals.wait()
    await asyncio.sleep(0)
    turn.status = end
    turn.wakes.every(RUN)
    assert (await waiting).status == end
    assert turn.asked <= 3


async def test_a_turn_that_does_not_end_in_time_is_shown_as_it_is() -> None:
    turn = Elsewhere()
    assert (await ended(RUN, Caller(), turn, within=0.01)).status == "running"
    assert turn.wakes.waiting == {}


async def test_who_does_not_wait_asks_once() -> None:
    turn = Elsewhere()
    await ended(RUN, Caller(), turn, within=0)
    assert (turn.asked, turn.signals.is_set()) == (1, False)
