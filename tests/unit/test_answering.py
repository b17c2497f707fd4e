"""A caller of the OpenAI door who hangs up stops what is done for it alone."""

import asyncio
from contextlib import aclosing
from types import SimpleNamespace

from agentflow.api.openai.answering import _heard
from agentflow.protocols import Request


async def test_the_last_reader_takes_the_generation_along(world, soon) -> None:
    async with world() as w:
        w.engine.gate = asyncio.Event()
        feed = await w.worker.start(Request(text="hello", wanted_role="coder"))
        await soon(lambda: w.engine.running == 1)
        listening = asyncio.ensure_future(_all(feed, w))
        await soon(lambda: feed.readers == 1)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await soon(lambda: feed.closed)
        assert ("cancel", "coder@1") in w.engine.calls or w.engine.running == 0
        assert (await w.ledger.find(feed.run_id, tenant=0)).status == "cancelled"


async def test_what_was_heard_before_stays_with_the_cancelled_turn(world, soon) -> None:
    async with world() as w:
        w.engine.delay = 0.05
        feed = await w.worker.start(Request(text="hello", wanted_role="coder"))
        async with aclosing(_heard(feed, SimpleNamespace(worker=w.worker))) as pieces:
            first = (await anext(pieces)).text
        await soon(lambda: feed.closed)
        entry = w.ledger.runs[feed.run_id]
        assert (entry.record.status, entry.record.error["error"]) == ("cancelled", "Cancelled")
        assert first
        assert entry.answer.startswith(first)
        assert w.ledger.memory.items == []


async def test_who_else_listens_keeps_the_turn_going(world, soon) -> None:
    async with world() as w:
        w.engine.gate = asyncio.Event()
        feed = await w.worker.start(Request(text="hello", wanted_role="coder"))
        other = asyncio.ensure_future(feed.finished())
        listening = asyncio.ensure_future(_all(feed, w))
        await soon(lambda: feed.readers == 2)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        w.engine.gate.set()
        assert (await other)["output"] == "[coder] You said: hello"


async def _all(feed, w) -> str:
    async with aclosing(_heard(feed, SimpleNamespace(worker=w.worker))) as pieces:
        return "".join([one.text async for one in pieces])
