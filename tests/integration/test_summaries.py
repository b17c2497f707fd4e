"""Summaries of sessions that are over: they point to their turns, replace none, and go with them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from agentflow.fakes.embedder import FakeEmbedder
from agentflow.fakes.engine import FakeEngine
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import NewMemory, Scope
from agentflow.records.connections import Connections
from agentflow.records.memory.forget import Forgetting, Selector
from agentflow.records.memory.rights import Filter, Owner, Rights
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.summaries import Said, Summaries
from agentflow.records.memory.writing import Archive
from agentflow.runs.summarizer import WINDOW, Summarizer, windows

ANN = Owner(0, "ann")
HERS = Scope(0, "conversations", "ann")
YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture
def scopes(connections: Connections) -> Scopes:
    return Scopes(connections, {}, FakeEmbedder.id, FakeEmbedder.dim)


async def said(
    connections: Connections, scopes: Scopes, count: int, at: datetime = YESTERDAY, session: int = 7
):
    items = [
        (UUID(int=session * 100 + n), NewMemory("conversations", n, "user", f"I like dog {n}", said_at=at))
        for n in range(count)
    ]
    await Archive(connections, scopes).add(HERS, session, 0, items)


def summarizer(connections: Connections, scopes: Scopes, *, idle=lambda: True, engine=None) -> Summarizer:
    return Summarizer(Summaries(connections, scopes, pause=3600), engine or FakeEngine(), idle)


async def listed(connections: Connections, scopes: Scopes, kind: str) -> list[dict[str, object]]:
    return await Rights(connections, scopes).listed(ANN, Filter(kind=kind))


async def test_a_session_that_is_over_gets_one_summary_that_names_its_turns(connections, scopes) -> None:
    await said(connections, scopes, 9)
    await said(connections, scopes, 9, at=datetime.now(UTC), session=8)
    await said(connections, scopes, 3, session=9)
    assert await summarizer(connections, scopes).sum_up() == 1
    assert await summarizer(connections, scopes).sum_up() == 0
    (one,) = await listed(connections, scopes, "summary")
    shown = await Rights(connections, scopes).shown(ANN, one["id"])
    turns = await listed(connections, scopes, "turn")
    assert sorted(shown["sources"]) == sorted(turn["id"] for turn in turns if turn["session"] == 7)
    assert (one["trust"], one["speaker"], len(turns)) == (5, "summary", 21)


async def test_a_summary_is_found_like_any_memory_and_forgotten_with_any_of_its_turns(
    connections, scopes
) -> None:
    await said(connections, scopes, 9)
    await summarizer(connections, scopes).sum_up()
    home = PostgresMemory(connections, scopes)
    assert "summary" in [
        one["speaker"] for one in await home.search(HERS, "condense conversation dog", None, 20)
    ]
    turn = (await listed(connections, scopes, "turn"))[0]["id"]
    receipt = await Forgetting(connections).forget(ANN, Selector("ids", [turn]))
    assert receipt["counts"]["memories"] == 2
    assert await listed(connections, scopes, "summary") == []


async def test_a_turn_that_wants_the_engine_comes_first(connections, scopes) -> None:
    await said(connections, scopes, 9)
    answers = iter([True, True, False])
    assert await summarizer(connections, scopes, idle=lambda: next(answers)).sum_up() == 0
    assert await listed(connections, scopes, "summary") == []


async def test_what_was_forgotten_meanwhile_is_in_no_summary(connections, scopes) -> None:
    await said(connections, scopes, 9)
    summaries = Summaries(connections, scopes, pause=3600)
    session = await summaries.due()
    before = await summaries.said(session)
    await Forgetting(connections).forget(ANN, Selector("ids", [before[0].id]))
    assert not await summaries.write(session, [("They like dogs.", before)])
    assert await listed(connections, scopes, "summary") == []


def test_a_long_session_is_read_in_windows() -> None:
    found = windows([Said(n, "user", YESTERDAY, "word " * 400) for n in range(6)])
    assert [len(window) for window in found] == [2, 2, 2]
    assert WINDOW == 1200
