"""A world in memory: the real graph and worker over shipped fakes."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from agentflow import graph as graphs
from agentflow.fakes.adapter import fake_adapter
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.fakes.engine import FakeEngine
from agentflow.fakes.ledger import FakeLedger
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.plan import Budgets
from agentflow.residency.roster import Residence
from agentflow.routing.intents import Intents
from agentflow.routing.roles import RoleExamples
from agentflow.runs.attempts import Attempts
from agentflow.runs.worker import Worker
from agentflow.settings import Role, Settings
from agentflow.telemetry.traces import NoSpans, Spans

ROLES = {
    "philosopher": Role(
        description="justice and meaning", lora_path="p", system_prompt="You are a philosopher."
    ),
    "coder": Role(description="python code and functions", lora_path="c"),
}


@dataclass
class World:
    """What a test may look at and break."""

    ledger: FakeLedger
    engine: FakeEngine
    embedder: FakeEmbedder
    keeper: AdapterKeeper
    worker: Worker


@pytest.fixture
def settings() -> Settings:
    return Settings(roles=ROLES, memory={"min_score": 0.0})


@pytest.fixture
def world(settings: Settings) -> Callable[..., AbstractAsyncContextManager[World]]:
    """A function that opens a world: `async with world() as w`."""

    @asynccontextmanager
    async def opened(
        *,
        turn_seconds: float = 60.0,
        lease: float = 30.0,
        renewal: float = 10.0,
        spans: Spans | None = None,
    ):
        ledger, engine, embedder = FakeLedger(lease=lease), FakeEngine(check_files=False), FakeEmbedder()
        roster = {name: fake_adapter(name, residence=Residence(unload_after=None)) for name in settings.roles}
        keeper = AdapterKeeper(engine, roster, Budgets(2))
        roles = [RoleExamples(name, role.description) for name, role in settings.roles.items()]
        classifier = Intents(embedder, roles, settings.router)
        await classifier.open()
        needs = graphs.Needs(
            ledger=ledger,
            classifier=classifier,
            embedder=embedder,
            home=ledger.memory,
            engine=engine,
            keeper=keeper,
            roles=roles,
            settings=settings,
            fault=graphs.no_fault,
            spans=spans or NoSpans(),
        )
        attempts = Attempts(ledger, graphs.build(needs), lambda _: InMemorySaver(), turn_seconds, renewal)
        attempts.spans = needs.spans
        worker = Worker(ledger, attempts)
        yield World(ledger, engine, embedder, keeper, worker)
        await worker.close(grace=0)
        await keeper.close()

    return opened
