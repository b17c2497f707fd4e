"""A turn in memory: its steps, its events, its failures."""

import asyncio
from dataclasses import replace

import pytest

from agentflow.errors import EngineDown, EngineTimeout, NotFound, TooMany
from agentflow.protocols import Outcome, Request
from agentflow.runs.seats import Seats
from agentflow.runs.worker import Most

USAGE = {"prompt_tokens": 0, "completion_tokens": 0}


async def test_a_turn_tells_every_step_in_order_and_ends_with_the_answer(world) -> None:
    async with world() as w:
        feed = await w.worker.start(Request(text="What is justice?", wanted_role="philosopher"))
        events = [one["event"] async for one in feed.follow()]
        steps = [one for one in events if one != "token"]
        assert steps == ["accept", "classify", "select", "recall", "generate", "done", "remember"]
        assert "token" in events
        result = await feed.finished()
        assert (result["role"], result["adapter"], result["reason"]) == (
            "philosopher",
            "philosopher@1",
            "explicit",
        )
        assert result["output"].startswith("[philosopher]")


async def test_tokens_joined_are_the_answer(world) -> None:
    async with world() as w:
        feed = await w.worker.start(Request(text="hello", wanted_role="coder"))
        tokens = [one["text"] async for one in feed.follow() if one["event"] == "token"]
        assert "".join(tokens) == (await feed.finished())["output"]


async def test_the_adapter_loads_while_memory_is_searched(world) -> None:
    async with world() as w:
        order: list[str] = []
        searched = asyncio.Event()
        load, search = w.engine.load, w.ledger.memory.search

        async def slow_load(name, folder):
            order.append("load begins")
            await searched.wait()
            await load(name, folder)
            order.append("load ends")

        async def noted_search(*arguments):
            order.append("search")
            searched.set()
            return await search(*arguments)

        w.engine.load, w.ledger.memory.search = slow_load, noted_search
        await (await w.worker.start(Request(text="hello", wanted_role="coder"))).finished()
        assert order == ["load begins", "search", "load ends"]


async def test_a_turn_that_ends_in_tool_calls_is_a_step_that_nobody_remembers(world) -> None:
    tool = {
        "type": "function",
        "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
    }
    async with world() as w:
        request = Request(text="call the tool", wanted_role="coder", given={"tools": [tool]})
        feed = await w.worker.start(request)
        result = await feed.finished()
        assert (result["finish"], result["output"]) == ("tool_calls", "")
        assert result["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
        assert "tool_calls" in [one["event"] for one in feed.events]
        assert w.ledger.memory.items == []
        again = await (await w.worker.start(replace(request, text="hi", thread_id=feed.thread_id))).finished()
        assert "tool_calls" not in again
        assert [one["content"] for one in w.engine.prompts[-1].messages] == ["hi"]


async def test_a_client_with_a_memory_of_its_own_gets_none_of_ours(world) -> None:
    async with world() as w:
        for text in ("My dog is called Rex", "How is my dog called?"):
            request = Request(text=text, wanted_role="coder", given={"memory": False})
            result = await (await w.worker.start(request)).finished()
        assert (result["memory"], result["memories"], w.ledger.memory.items) == ("off", [], [])


async def test_what_one_thread_said_another_remembers(world) -> None:
    async with world() as w:
        await (await w.worker.start(Request(text="My dog is called Rex", wanted_role="coder"))).finished()
        result = await (
            await w.worker.start(Request(text="How is my dog called?", wanted_role="coder"))
        ).finished()
        assert "My dog is called Rex" in [one["content"] for one in result["memories"]]
        assert "Rex" in result["output"]


async def test_what_the_prompt_repeats_is_not_recalled(world) -> None:
    async with world() as w:
        first = await (
            await w.worker.start(Request(text="My dog is called Rex", wanted_role="coder"))
        ).finished()
        again = Request(text="My dog?", wanted_role="coder", thread_id=first["thread_id"])
        result = await (await w.worker.start(again)).finished()
        assert result["memories"] == []
        assert [one["content"] for one in w.engine.prompts[-1].messages] == [
            "My dog is called Rex",
            first["output"],
            "My dog?",
        ]


async def test_the_same_key_returns_the_stored_answer_without_asking_the_model(world) -> None:
    async with world() as w:
        request = Request(text="hello", wanted_role="coder", idempotency_key="k")
        first = await (await w.worker.start(request)).finished()
        asked = len(w.engine.prompts)
        again = await (await w.worker.start(request)).finished()
        assert (again, len(w.engine.prompts)) == (first, asked)


async def test_the_same_key_joins_the_turn_that_still_runs(world) -> None:
    async with world() as w:
        w.engine.gate = asyncio.Event()
        request = Request(text="hello", wanted_role="coder", idempotency_key="k")
        first, again = await w.worker.start(request), await w.worker.start(request)
        w.engine.gate.set()
        assert again is first
        assert (await first.finished())["output"]


async def test_open_runs_are_bounded_in_all_and_per_tenant(world) -> None:
    async with world() as w:
        w.worker.most, w.engine.gate = Most(runs=3, of_tenant=2), asyncio.Event()
        for _ in range(2):
            await w.worker.start(Request(text="hello", wanted_role="coder"))
        with pytest.raises(TooMany):
            await w.worker.start(Request(text="hello"))
        await w.worker.start(Request(text="hello", wanted_role="coder", tenant=1))
        with pytest.raises(TooMany, match=r"limits\.runs = 3"):
            await w.worker.start(Request(text="hello", tenant=2))
        assert len(w.ledger.runs) == 3
        w.engine.gate.set()
        await asyncio.gather(*w.worker.tasks.values())
        assert w.worker.open.total() == 0


async def test_what_a_tenant_has_open_elsewhere_counts_too(world) -> None:
    async with world() as w:
        w.worker.most = Most(of_tenant=2)
        elsewhere = [(await w.ledger.accept(Request(text="hello"))).lease for _ in range(2)]
        await w.worker.recover()
        with pytest.raises(TooMany):
            await w.worker.start(Request(text="hello"))
        await (await w.worker.start(Request(text="hello", wanted_role="coder", tenant=1))).finished()
        for lease in elsewhere:
            await w.ledger.fail(lease, {"error": "EngineDown"}, final=True)
        await w.worker.recover()
        for _ in range(3):
            await (await w.worker.start(Request(text="hello", wanted_role="coder"))).finished()
        await w.worker.recover()
        assert (dict(w.worker.everywhere), w.worker.since.total()) == ({}, 0)


async def test_no_more_turns_run_at_once_than_there_are_seats(world, soon) -> None:
    async with world() as w:
        w.worker.seats, w.engine.gate = Seats(2), asyncio.Event()
        feeds = [await w.worker.start(Request(text=str(one), wanted_role="coder")) for one in range(5)]
        await soon(lambda: w.engine.running == 2)
        assert w.worker.figures() == {("running",): 2, ("waiting",): 3, ("most",): 2}
        assert [one.record.status for one in w.ledger.runs.values()] == ["running"] * 2 + ["queued"] * 3
        w.engine.gate.set()
        await asyncio.gather(*w.worker.tasks.values())
        asked = [prompt.messages[-1]["content"].splitlines()[-1] for prompt in w.engine.prompts]
        assert all([await feed.finished() for feed in feeds])
        assert (asked, w.worker.seats.taken) == (["0", "1", "2", "3", "4"], 0)


async def test_a_turn_behind_another_of_its_thread_takes_no_seat(world, soon) -> None:
    async with world() as w:
        w.worker.seats, w.engine.gate = Seats(2), asyncio.Event()
        first = await w.worker.start(Request(text="0", wanted_role="coder"))
        second = await w.worker.start(Request(text="1", wanted_role="coder", thread_id=first.thread_id))
        await w.worker.start(Request(text="2", wanted_role="coder"))
        await soon(lambda: w.engine.running == 2)
        assert w.worker.figures() == {("running",): 2, ("waiting",): 1, ("most",): 2}
        w.engine.gate.set()
        assert (await second.finished())["output"]


async def test_what_waits_for_a_seat_is_left_to_others_when_the_process_ends(world, soon) -> None:
    async with world() as w:
        w.worker.seats, w.engine.gate = Seats(1), asyncio.Event()
        feeds = [await w.worker.start(Request(text="hello", wanted_role="coder")) for _ in range(2)]
        await soon(lambda: w.engine.running == 1)
        await w.worker.close(grace=0)
        taken = [await w.ledger.claim_next([]) for _ in range(3)]
        assert [one and one.run_id for one in taken] == [feeds[0].run_id, feeds[1].run_id, None]


async def test_a_turn_that_is_stopped_before_its_first_step_ends_too(world) -> None:
    async with world() as w:
        feed = await w.worker.start(Request(text="hello", wanted_role="coder"))
        w.worker.halt(feed.run_id, "left")
        async with asyncio.timeout(60):
            await feed.ended()
        assert (w.worker.tasks, w.worker.attempts.stops, w.worker.seats.taken) == ({}, {}, 0)
        assert (await w.ledger.find(feed.run_id, tenant=0)).status == "cancelled"


async def test_an_engine_that_is_down_fails_the_turn_and_the_same_key_tries_again(world) -> None:
    async with world() as w:
        w.engine.failure = EngineDown("nothing answers")
        request = Request(text="hello", wanted_role="coder", idempotency_key="k")
        feed = await w.worker.start(request)
        with pytest.raises(EngineDown):
            await feed.finished()
        record = await w.ledger.find(feed.run_id, tenant=0)
        assert (record.status, record.error["message"]) == ("failed", "nothing answers")
        w.engine.failure = None
        result = await (await w.worker.start(request)).finished()
        assert (result["run_id"], (await w.ledger.find(feed.run_id, tenant=0)).attempt) == (feed.run_id, 2)


async def test_a_turn_over_its_time_fails(world) -> None:
    async with world(turn_seconds=0.05) as w:
        w.engine.gate = asyncio.Event()
        feed = await w.worker.start(Request(text="hello", wanted_role="coder"))
        with pytest.raises(EngineTimeout, match=r"server\.turn_seconds = 0\.05"):
            await feed.finished()
        assert (await w.ledger.find(feed.run_id, tenant=0)).status == "failed"


async def test_a_worker_that_lost_its_lease_writes_nothing_and_tells_what_the_other_has_written(
    world,
) -> None:
    async with world(lease=-1.0, renewal=0.04) as w:  # over when it begins
        w.engine.gate = asyncio.Event()
        feed = await w.worker.start(Request(text="hello", wanted_role="coder"))
        w.ledger.lease = 30.0
        other = await w.ledger.claim(feed.run_id)
        while w.worker.seated:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        assert (await w.ledger.find(feed.run_id, tenant=0)).status == "running"
        assert (other.attempt, w.ledger.memory.items) == (2, [])
        await w.ledger.finish(other, Outcome("Hi", {"output": "Hi"}, None, None, USAGE, 1))
        w.worker.heard("run", feed.run_id, "")
        assert (await feed.finished())["output"] == "Hi"
        assert w.worker.metrics.registry.get_sample_value("agentflow_leases_lost_total") == 1


async def test_turns_of_one_thread_answer_in_order(world) -> None:
    async with world() as w:
        thread = (await (await w.worker.start(Request(text="0", wanted_role="coder"))).finished())[
            "thread_id"
        ]
        requests = [
            Request(text=str(number), wanted_role="coder", thread_id=thread) for number in range(1, 6)
        ]
        feeds = [await w.worker.start(request) for request in requests]
        await asyncio.gather(*(feed.finished() for feed in feeds))
        asked = [prompt.messages[-1]["content"].splitlines()[-1] for prompt in w.engine.prompts]
        assert asked == ["0", "1", "2", "3", "4", "5"]
        assert [len(prompt.messages) for prompt in w.engine.prompts] == [1, 3, 5, 7, 9, 11]


async def test_shutting_down_hands_the_turn_back_and_the_next_start_finishes_it(world, soon) -> None:
    async with world() as w:
        w.engine.gate = asyncio.Event()
        feed = await w.worker.start(Request(text="hello", wanted_role="coder"))
        await soon(lambda: w.engine.running == 1)
        await w.worker.close(grace=0)
        assert (await w.ledger.find(feed.run_id, tenant=0)).status == "queued"
        w.engine.gate = None
        assert await w.worker.recover() == 1
        result = await w.worker.feeds[feed.run_id].finished()
        assert (result["run_id"], (await w.ledger.find(feed.run_id, tenant=0)).status) == (
            feed.run_id,
            "done",
        )


async def test_a_turn_that_keeps_dying_is_given_up(world) -> None:
    async with world(lease=0.0) as w:
        accepted = await w.ledger.accept(Request(text="hello"))
        for _ in range(2):
            await w.ledger.claim(accepted.record.run_id)
        await w.worker.recover()
        await asyncio.gather(*w.worker.tasks.values())
        record = await w.ledger.find(accepted.record.run_id, tenant=0)
        assert (record.status, record.error["message"]) == ("failed", "Given up after 3 attempts.")


async def test_somebody_elses_thread_is_refused_before_anything_is_kept(world) -> None:
    async with world() as w:
        feed = await w.worker.start(Request(text="hello", wanted_role="coder"))
        await feed.finished()
        with pytest.raises(NotFound):
            await w.worker.start(Request(text="hi", thread_id=feed.thread_id, user="eve"))
        assert len(w.ledger.runs) == 1


async def test_an_embedder_that_is_down_costs_the_memories_not_the_answer(world) -> None:
    async with world() as w:
        w.embedder.failing = True
        result = await (await w.worker.start(Request(text="hello", wanted_role="coder"))).finished()
        assert (result["memories"], result["output"][:7]) == ([], "[coder]")


async def test_while_the_embedder_is_down_a_message_without_a_role_is_answered_too(world) -> None:
    async with world() as w:
        w.embedder.failing = True
        result = await (await w.worker.start(Request(text="hello there, my friend"))).finished()
        assert (result["role"], result["reason"], result["memory"]) == (None, "fallback:unknown", "degraded")
