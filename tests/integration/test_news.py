"""What one process does, another one on the same database takes over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from agentflow.fakes.embedder import FakeEmbedder
from agentflow.protocols import Scope
from agentflow.records.connections import open_connections
from agentflow.records.feedback import Feedback
from agentflow.records.memory.forget import Forgetting, Selector
from agentflow.records.memory.rights import Owner
from agentflow.records.memory.scopes import Scopes
from agentflow.records.signals import Signals
from agentflow.routing.intents import Intents
from agentflow.routing.roles import RoleExamples
from agentflow.settings.routing import RouterSettings
from agentflow.wiring.news import News

ANN = Owner(0, "ann")
MESSAGE = "Grow tomatoes for me"
ROLES = [
    RoleExamples("coder", "python code and functions", ()),
    RoleExamples("gardener", "plants and soil", ()),
]


@dataclass
class Process:
    """One of several on a database: what it routes by, and what it writes with."""

    news: News
    feedback: Feedback
    forgetting: Forgetting

    @property
    def taught(self) -> list[str]:
        return [one.text for one in self.news.classifier.lessons]


@asynccontextmanager
async def process(database: str, name: str, cache) -> AsyncIterator[Process]:
    async with AsyncExitStack() as stack:
        connections = await open_connections(database, size=4)
        stack.push_async_callback(connections.close)
        feedback = Feedback(connections, name)
        intents = Intents(FakeEmbedder(), ROLES, RouterSettings(), cache / name, await feedback.lessons())
        await intents.open()
        scopes = Scopes(connections, {}, FakeEmbedder.id, FakeEmbedder.dim)
        worker = SimpleNamespace(heard=print, wakes=SimpleNamespace(everybody=lambda: None))
        news = News(name, worker, scopes, feedback, intents)
        listening = asyncio.Event()
        task = asyncio.create_task(
            Signals(database, news.heard, lambda: (news.missed(), listening.set())).listen()
        )
        stack.callback(task.cancel)
        await listening.wait()
        news.due.clear()
        yield Process(news, feedback, Forgetting(connections, name))


@pytest.fixture
async def two(database: str, tmp_path) -> AsyncIterator[tuple[Process, Process]]:
    async with process(database, "one", tmp_path) as one, process(database, "two", tmp_path) as two:
        yield one, two


async def test_a_correction_is_learnt_and_forgotten_by_every_process(two, desk, tmp_path, soon) -> None:
    one, other = two
    run = await desk.says(MESSAGE)
    await one.feedback.give(run, "gardener", owner=ANN.seen, accepted=True, chars=999)
    await soon(other.news.due.is_set)
    await other.news.relearn()
    assert other.taught == [MESSAGE]
    assert any(MESSAGE.encode() in file.read_bytes() for file in (tmp_path / "two").iterdir())
    other.news.due.clear()
    await one.forgetting.forget(ANN, Selector("user"))
    await soon(other.news.due.is_set)
    await other.news.relearn()
    assert other.taught == []
    assert not any(MESSAGE.encode() in file.read_bytes() for file in (tmp_path / "two").iterdir())


async def test_who_missed_the_signal_unlearns_when_it_listens_again(two, desk) -> None:
    one, other = two
    run = await desk.says(MESSAGE)
    await one.feedback.give(run, "gardener", owner=ANN.seen, accepted=True, chars=999)
    await other.news.relearn()
    await one.forgetting.forget(ANN, Selector("user"))
    other.news.missed()
    await other.news.relearn()
    assert other.taught == []


async def test_what_a_process_did_itself_is_no_news_to_it(two, desk, soon) -> None:
    one, other = two
    run = await desk.says(MESSAGE)
    await one.feedback.give(run, "gardener", owner=ANN.seen, accepted=True, chars=999)
    await soon(other.news.due.is_set)
    assert not one.news.due.is_set()


async def test_a_forgotten_set_is_remembered_by_no_process(two, desk, soon) -> None:
    one, other = two
    await desk.says(MESSAGE)
    await other.news.scopes.of(Scope(0, "conversations", "ann"))
    await one.forgetting.forget(ANN, Selector("user"))
    await soon(lambda: other.news.scopes.known == {})
