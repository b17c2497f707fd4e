"""When subgraphs begin and end, and the tree that they make."""

import json

import pytest

from agentflow.records.protocol.listeners import RunInThread
from agentflow.runs.agents import grown
from agentflow.runs.events import Event
from agentflow.runs.subgraphs import Subgraphs


def heard(*events) -> list[tuple[list[str], str]]:
    subgraphs = Subgraphs()
    told = [one for event in events for one in subgraphs.heard(*event)]
    return [(names, data["event"]) for _, names, data in told]


def task(name: str, ident: str, **more) -> dict:
    return {"name": name, "id": ident, "interrupts": [], "error": None, **more}


def test_a_subgraph_begins_with_its_first_event_and_those_around_it_before_it() -> None:
    assert heard(("values", ["fetch:1", "inner:2"], {}), ("values", ["fetch:1"], {})) == [
        (["fetch:1"], "started"),
        (["fetch:1", "inner:2"], "started"),
    ]


@pytest.mark.parametrize(
    ("end", "how"),
    [({}, "completed"), ({"error": "it broke"}, "failed"), ({"interrupts": [{"id": "i"}]}, "interrupted")],
)
def test_a_subgraph_ends_with_its_task_and_those_within_before_it(end, how) -> None:
    begun = ("values", ["fetch:1", "inner:2"], {})
    assert heard(begun, ("tasks", [], task("fetch", "1", **end)))[2:] == [
        (["fetch:1", "inner:2"], how),
        (["fetch:1"], how),
    ]


def test_a_task_that_begins_or_ran_no_subgraph_ends_nothing() -> None:
    begun = {"name": "fetch", "id": "1", "input": {}, "triggers": []}
    assert (
        heard(("values", ["fetch:1"], {}), ("tasks", [], begun), ("tasks", [], task("other", "2")))[1:] == []
    )


def events(*several) -> list[Event]:
    return [Event(seq, 0, name, json.dumps(data).encode()) for seq, (name, data) in enumerate(several, 1)]


def node(status: str, *namespace: str, children=()) -> dict:
    name = namespace[-1].split(":")[0] if namespace else "graph"
    return {"namespace": list(namespace), "status": status, "graph_name": name, "children": list(children)}


def test_the_tree_of_a_run_says_how_far_each_has_come() -> None:
    told = events(("values|a:1|b:2", {}), ("tasks|a:1", task("b", "2")), ("values|c:3", {}))
    inner = node("completed", "a:1", "b:2")
    going = [node("started", "a:1", children=[inner]), node("started", "c:3")]
    assert grown(RunInThread("r", "t", 1, "graph", 1), told) == node("running", children=going)
    failed = [node("failed", "a:1", children=[inner]), node("failed", "c:3")]
    assert grown(RunInThread("r", "t", 1, "graph", 3), told) == node("failed", children=failed)


def test_a_run_that_waits_for_a_person_is_interrupted() -> None:
    told = events(("updates", {"__interrupt__": [{"id": "i"}]}))
    assert grown(RunInThread("r", "t", 1, "graph", 2), told) == node("interrupted")
