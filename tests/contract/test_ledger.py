"""What every ledger does: one suite for the fake and for Postgres."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agentflow.errors import Conflict, LeaseLost, NotFound
from agentflow.fakes.ledger import FakeLedger
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import Lease, Ledger, MemoryHome, NewMemory, Outcome, Request, Scope
from agentflow.records.connections import open_connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.scopes import Scopes
from agentflow.settings import Collection

MINE = Scope(0, "conversations", "default")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


@pytest.fixture(params=["fake", "postgres"])
async def world(
    request: pytest.FixtureRequest, fresh_database: Callable[[], str]
) -> AsyncIterator[tuple[Ledger, MemoryHome]]:
    """A ledger whose leases last an hour, and the memories it writes."""
    if request.param == "fake":
        ledger = FakeLedger(lease=3600)
        yield ledger, ledger.memory
        return
    connections = await open_connections(fresh_database(), size=4)
    scopes = Scopes(connections, {"conversations": Collection()}, "test", 2)
    yield PostgresLedger(connections, scopes, worker="test", lease=3600), PostgresMemory(connections, scopes)
    await connections.close()


@pytest.fixture
def ledger(world: tuple[Ledger, MemoryHome]) -> Ledger:
    return world[0]


def outcome(answer: str = "Rex", **changes: object) -> Outcome:
    plain = {
        "result": {"output": answer},
        "role": "coder",
        "adapter": "coder@1",
        "usage": USAGE,
        "latency_ms": 5,
    }
    return Outcome(answer=answer, **{**plain, **changes})


def lapsing(ledger: Any) -> Ledger:
    """The same ledger, giving leases that are over when they begin."""
    return replace(ledger, lease=-1.0)


async def test_what_waits_is_claimed_in_order_by_whoever_does_not_know_it(ledger: Ledger) -> None:
    waiting = [(await ledger.accept(Request(text="hi"), now=False)).record for _ in range(3)]
    behind = await ledger.accept(Request(text="hi", thread_id=waiting[0].thread_id))
    assert (behind.lease, await ledger.claim_next([])) == (None, None)
    await ledger.leave([one.run_id for one in (*waiting, behind.record)])
    taken = [await ledger.claim_next([waiting[1].run_id]) for _ in range(3)]
    assert [one and one.run_id for one in taken] == [waiting[0].run_id, waiting[2].run_id, None]
    assert (await ledger.claim(waiting[1].run_id)).attempt == 1


async def accepted(ledger: Ledger, **request: object) -> Lease:
    lease = (await ledger.accept(Request(**{"text": "hi", **request}))).lease
    assert lease is not None
    return lease


async def test_an_accepted_message_starts_with_attempt_one(ledger: Ledger) -> None:
    acceptance = await ledger.accept(Request(text="hi", wanted_role="coder"))
    record = acceptance.record
    assert (acceptance.fresh, record.status, record.attempt) == (True, "running", 1)
    assert acceptance.lease == Lease(record.run_id, record.thread_id, 1, 0, "default", "hi", "coder")


async def test_a_known_key_returns_the_earlier_run(ledger: Ledger) -> None:
    first = await ledger.accept(Request(text="hi", idempotency_key="k"))
    again = await ledger.accept(Request(text="hi", idempotency_key="k"))
    assert (again.fresh, again.lease, again.record.run_id) == (False, None, first.record.run_id)


async def test_many_at_once_with_one_key_make_one_run(ledger: Ledger) -> None:
    request = Request(text="hi", idempotency_key="k")
    found = await asyncio.gather(*(ledger.accept(request) for _ in range(8)))
    assert [one.fresh for one in found].count(True) == 1
    assert len({one.record.run_id for one in found}) == 1


async def test_a_key_belongs_to_its_request(ledger: Ledger) -> None:
    await ledger.accept(Request(text="hi", idempotency_key="k"))
    with pytest.raises(Conflict, match="'k' was used for another request"):
        await ledger.accept(Request(text="something else", idempotency_key="k"))


@pytest.mark.parametrize("owner", [{"tenant": 1}, {"user": "eve"}])
async def test_a_key_belongs_to_its_owner(ledger: Ledger, owner: dict[str, Any]) -> None:
    first = await ledger.accept(Request(text="hi", idempotency_key="k"))
    other = await ledger.accept(Request(text="hi", idempotency_key="k", **owner))
    assert other.fresh
    assert other.record.run_id != first.record.run_id


async def test_somebody_elses_thread_does_not_exist(ledger: Ledger) -> None:
    lease = await accepted(ledger)
    with pytest.raises(NotFound):
        await ledger.accept(Request(text="hi", thread_id=lease.thread_id, user="eve"))
    with pytest.raises(NotFound):
        await ledger.find(lease.run_id, tenant=1)
    with pytest.raises(NotFound):
        await ledger.find(lease.run_id, tenant=0, user="eve")


async def test_open_runs_are_counted_by_tenant_until_they_end(ledger: Ledger) -> None:
    assert await ledger.open_runs() == {}
    lease = await accepted(ledger)
    await ledger.accept(Request(text="and?", thread_id=lease.thread_id))
    await ledger.accept(Request(text="hi", tenant=7))
    assert await ledger.open_runs() == {0: 2, 7: 1}
    await ledger.finish(lease, outcome())
    assert await ledger.open_runs() == {0: 1, 7: 1}


async def test_a_thread_goes_on_only_after_its_earlier_turn(ledger: Ledger) -> None:
    first = await accepted(ledger)
    second = await ledger.accept(Request(text="and?", thread_id=first.thread_id))
    assert (second.lease, await ledger.claim(second.record.run_id)) == (None, None)
    await ledger.finish(first, outcome())
    lease = await ledger.claim(second.record.run_id)
    assert lease is not None
    assert (lease.attempt, lease.text) == (1, "and?")


async def test_a_run_out_of_lease_is_abandoned_and_claimed_with_the_next_attempt(ledger: Ledger) -> None:
    await accepted(ledger)
    assert await ledger.abandoned(limit=9) == []
    lease = await accepted(lapsing(ledger))
    assert await ledger.abandoned(limit=9) == [lease.run_id]
    claimed = await ledger.claim(lease.run_id)
    assert claimed is not None
    assert claimed.attempt == 2


async def test_a_renewed_lease_is_not_abandoned(ledger: Ledger) -> None:
    lease = await accepted(lapsing(ledger))
    assert await ledger.renew([lease]) == {lease.run_id: None}
    assert await ledger.abandoned(limit=9) == []


async def test_leases_are_renewed_together_and_lost_ones_are_left_out(ledger: Ledger) -> None:
    mine, ended, back = [await accepted(ledger) for _ in range(3)]
    stale = await accepted(lapsing(ledger))
    assert await ledger.claim(stale.run_id) is not None
    await ledger.finish(ended, outcome())
    await ledger.fail(back, {}, final=False)
    assert await ledger.renew([mine, ended, back, stale]) == {mine.run_id: None, ended.run_id: None}
    assert await ledger.renew([]) == {}


async def test_a_stale_attempt_writes_nothing(world: tuple[Ledger, MemoryHome]) -> None:
    ledger, memory = world
    stale = await accepted(lapsing(ledger))
    current = await ledger.claim(stale.run_id)
    assert current is not None
    item = NewMemory("conversations", 0, "user", "stale", np.float32([1, 0]))
    for write in (
        ledger.finish(stale, outcome("stale", memories=[item])),
        ledger.fail(stale, {}, final=True),
        ledger.cancel(stale, {}, said="sta"),
    ):
        with pytest.raises(LeaseLost):
            await write
    await ledger.finish(current, outcome("current"))
    record = await ledger.find(stale.run_id, tenant=0)
    assert (record.status, record.attempt, record.result) == ("done", 2, {"output": "current"})
    assert await memory.search(MINE, "stale", np.float32([1, 0]), 9) == []


async def test_finishing_twice_changes_nothing(world: tuple[Ledger, MemoryHome]) -> None:
    ledger, memory = world
    lease = await accepted(ledger)
    item = NewMemory("conversations", 0, "user", "hi", np.float32([1, 0]))
    await ledger.finish(lease, outcome(memories=[item]))
    await ledger.finish(lease, outcome("another answer", memories=[item]))
    assert (await ledger.find(lease.run_id, tenant=0)).result == {"output": "Rex"}
    assert len(await memory.search(MINE, "hi", np.float32([1, 0]), 9)) == 1


async def test_a_failed_run_keeps_its_reason_and_can_be_opened_again(ledger: Ledger) -> None:
    lease = await accepted(ledger)
    await ledger.fail(lease, {"message": "engine down"}, final=True)
    record = await ledger.find(lease.run_id, tenant=0)
    assert (record.status, record.error) == ("failed", {"message": "engine down"})
    assert await ledger.claim(lease.run_id) is None
    await ledger.reopen(lease.run_id, tenant=0)
    again = await ledger.claim(lease.run_id)
    assert again is not None
    assert again.attempt == 2


async def test_an_answer_that_nobody_hears_out_is_no_memory_and_may_be_asked_for_again(
    ledger: Ledger,
) -> None:
    lease = await accepted(ledger)
    await ledger.cancel(lease, {"message": "hung up"}, said="Re")
    record = await ledger.find(lease.run_id, tenant=0)
    assert (record.status, record.error) == ("cancelled", {"message": "hung up"})
    following = await accepted(ledger, thread_id=lease.thread_id)
    assert (await ledger.context(following.run_id, tenant=0, messages=9))["history"] == []
    await ledger.fail(following, {}, final=True)
    await ledger.reopen(lease.run_id, tenant=0)
    again = await ledger.claim(lease.run_id)
    assert again is not None
    await ledger.finish(again, outcome("Rex"))
    assert (await ledger.find(lease.run_id, tenant=0)).result == {"output": "Rex"}


async def test_a_run_handed_back_is_claimed_at_once(ledger: Ledger) -> None:
    lease = await accepted(ledger)
    await ledger.fail(lease, {}, final=False)
    again = await ledger.claim(lease.run_id)
    assert again is not None
    assert again.attempt == 2


async def test_context_is_what_the_thread_knew_before_the_turn(ledger: Ledger) -> None:
    first = await accepted(ledger, text="My dog is Rex")
    await ledger.finish(first, outcome("Rex!", result={"selection": {"offered": ["coder", "artist"]}}))
    second = await accepted(ledger, text="and?", thread_id=first.thread_id)
    context = await ledger.context(second.run_id, tenant=0, messages=10)
    assert context.pop("idle") == pytest.approx(0, abs=5)
    assert context == {
        "text": "and?",
        "history": [{"role": "user", "content": "My dog is Rex"}, {"role": "assistant", "content": "Rex!"}],
        "role": "coder",
        "pinned_role": None,
        "offered": ["coder", "artist"],
    }


async def test_history_is_the_newest_messages_of_finished_turns(ledger: Ledger) -> None:
    first = await accepted(ledger, text="one")
    await ledger.finish(first, outcome("1"))
    failed = await accepted(ledger, text="two", thread_id=first.thread_id)
    await ledger.fail(failed, {}, final=True)
    third = await accepted(ledger, text="three", thread_id=first.thread_id)
    await ledger.finish(third, outcome("3"))
    last = await accepted(ledger, text="four", thread_id=first.thread_id)
    context = await ledger.context(last.run_id, tenant=0, messages=3)
    assert [one["content"] for one in context["history"]] == ["1", "three", "3"]
    assert (await ledger.context(last.run_id, tenant=0, messages=0))["history"] == []


async def test_what_a_client_sent_beside_its_message_is_there_until_the_turn_ends(ledger: Ledger) -> None:
    given = {"system": "Be terse.", "tools": []}
    lease = await accepted(ledger, given=given)
    assert lease.given == given
    await ledger.fail(lease, {"error": "Interrupted"}, final=False)
    again = await ledger.claim(lease.run_id)
    assert again is not None
    assert again.given == given


async def test_a_step_is_no_part_of_the_conversation(ledger: Ledger) -> None:
    step = await accepted(ledger, text="call the tool")
    await ledger.finish(step, outcome("", kind="step"))
    turn = await accepted(ledger, text="call the tool", thread_id=step.thread_id)
    await ledger.finish(turn, outcome("done", exchange=b"0123456789abcdef"))
    last = await accepted(ledger, text="thanks", thread_id=step.thread_id)
    context = await ledger.context(last.run_id, tenant=0, messages=10)
    assert [one["content"] for one in context["history"]] == ["call the tool", "done"]


async def test_a_key_finds_its_run_for_its_owner_only(ledger: Ledger) -> None:
    lease = await accepted(ledger, idempotency_key="k")
    found = await ledger.with_key("k", tenant=0, user="default")
    assert found is not None
    assert found.run_id == lease.run_id
    assert await ledger.with_key("k", tenant=0, user="eve") is None
    assert await ledger.with_key("k", tenant=1, user="default") is None
    assert await ledger.with_key("other", tenant=0, user="default") is None


async def test_a_key_may_stand_for_more_than_the_text(ledger: Ledger) -> None:
    await ledger.accept(Request(text="hi", idempotency_key="k", stands_for=b"a"))
    again = await ledger.accept(Request(text="hi", idempotency_key="k", stands_for=b"a"))
    assert not again.fresh
    with pytest.raises(Conflict):
        await ledger.accept(Request(text="hi", idempotency_key="k", stands_for=b"b"))
