"""The order of the steps."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from agentflow.nodes.accept import accept
from agentflow.nodes.classify import classify
from agentflow.nodes.generate import generate
from agentflow.nodes.recall import recall
from agentflow.nodes.remember import remember
from agentflow.nodes.select import select
from agentflow.protocols import Classifier, Embedder, Engine, Keeper, Ledger, MemoryHome
from agentflow.routing.roles import RoleExamples
from agentflow.settings import Settings
from agentflow.telemetry.traces import NoSpans, Spans
from agentflow.turn import Asked, Json, Turn

Graph = CompiledStateGraph[Turn, None, Asked, Turn]
Step = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Needs:
    """What the steps need of the world. `fault` is told every point at which a crash test may kill us."""

    ledger: Ledger
    classifier: Classifier
    embedder: Embedder
    home: MemoryHome
    engine: Engine
    keeper: Keeper
    roles: Sequence[RoleExamples]
    settings: Settings
    fault: Callable[[str], None]
    spans: Spans = field(default_factory=NoSpans)


def build(needs: Needs) -> Graph:
    """The turn: accept, classify, select (the adapter starts to move), recall, generate, remember."""
    settings, roles = needs.settings, needs.settings.roles
    steps: dict[str, Step] = {
        "accept": partial(accept, ledger=needs.ledger, keeper=needs.keeper, messages=settings.memory.history),
        "classify": partial(
            classify,
            ledger=needs.ledger,
            classifier=needs.classifier,
            roles=needs.roles,
            router=settings.router,
        ),
        "select": partial(
            select, ledger=needs.ledger, keeper=needs.keeper, roles=needs.roles, router=settings.router
        ),
        "recall": partial(
            recall,
            ledger=needs.ledger,
            embedder=needs.embedder,
            home=needs.home,
            roles=roles,
            memory=settings.memory,
        ),
        "generate": partial(
            generate,
            engine=needs.engine,
            keeper=needs.keeper,
            ledger=needs.ledger,
            home=needs.home,
            roles=roles,
            spans=needs.spans,
        ),
        "remember": partial(remember, ledger=needs.ledger, roles=roles, fault=needs.fault),
    }
    graph = StateGraph(Turn, input_schema=Asked, output_schema=Turn)
    for name, step in steps.items():
        graph.add_node(name, _told(name, step, needs))
    for before, after in zip([START, *steps], [*steps, END], strict=True):
        graph.add_edge(before, after)
    return graph.compile(name="agentflow")


def _told(name: str, step: Step, needs: Needs) -> Step:
    """The step, timed, with one event that shows what it found."""
    takes_config, takes_writer = name == "accept", name in ("generate", "remember")

    async def timed(turn: Turn, config: RunnableConfig) -> Json:
        began = time.perf_counter()
        write = get_stream_writer()

        def tell(event: Json) -> None:
            write(event)
            needs.fault(f"after_{event['event']}")

        extra = [config] if takes_config else [tell] if takes_writer else []
        with needs.spans.step(name) as found_by:
            found = await step(turn, *extra)
            found_by(found)
        spent = round((time.perf_counter() - began) * 1000, 2)
        tell({"event": name, "ms": spent, **shown(name, found)})
        return {**found, "timings": {name: spent}}

    return timed


def shown(step: str, found: Mapping[str, Any]) -> Json:
    """What a step's event says."""
    match step:
        case "accept":
            return {key: found[key] for key in ("run_id", "thread_id", "attempt")}
        case "classify":
            return {"intent": found["intent"]}
        case "select":
            return {key: found[key] for key in ("role", "adapter", "selection")}
        case "recall":
            return {key: found[key] for key in ("memory", "memories")}
        case "generate":
            return {key: found[key] for key in ("finish", "usage")}
        case _:
            return {"status": found["status"]}


def no_fault(_point: str) -> None:
    """The default: nothing happens."""


__all__ = ["Graph", "Needs", "build", "no_fault", "shown"]
