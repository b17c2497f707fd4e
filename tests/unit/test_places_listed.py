"""A thread's history as newer clients list it, and where our own graph's checkpoints stand in it."""

from agentflow.runs.branches import Branches, Told
from agentflow.runs.checkpoints import listed, space
from agentflow.runs.conversation import Asked
from agentflow.runs.tree import Tree


def state(ident: str, parent: str | None, coming: list[str], source: str = "loop") -> dict:
    return {
        "checkpoint_id": ident,
        "parent_checkpoint_id": parent,
        "next": coming,
        "created_at": "2026-01-01",
        "metadata": {"source": source, "step": 1},
    }


def test_a_place_names_the_one_step_that_led_to_it() -> None:
    states = [state("c", "b", []), state("b", "a", ["speak"]), state("a", None, ["x", "y"], "input")]
    assert [(one["id"], one.get("node_name")) for one in listed(states)] == [
        ("c", "speak"),
        ("b", None),
        ("a", None),
    ]
    assert listed(states[2:]) == [
        {"id": "a", "timestamp": "2026-01-01", "step": 1, "metadata": {"source": "input", "step": 1}}
    ]


def test_a_namespaces_segments_are_one_name_for_langgraph() -> None:
    assert space(["fetch:1", "inner:2"]) == {"checkpoint_ns": "fetch:1|inner:2"}
    assert space([]) is None


def chunk(ident: str, source: str, coming: list[str]) -> dict:
    return {"config": at(ident), "parent_config": None, "metadata": {"source": source}, "next": coming}


def at(ident: str) -> dict:
    return {"configurable": {"thread_id": "t", "checkpoint_id": ident}}


def test_a_turn_has_two_checkpoints_of_which_the_answers_hangs_on_the_questions() -> None:
    asked = Asked("question", "before")
    chunks = [chunk("1", "input", ["accept"]), chunk("2", "loop", ["generate"]), chunk("3", "loop", [])]
    placed = [asked.placed(one) for one in chunks]
    assert [one and (one["config"], one["parent_config"]) for one in placed] == [
        (at("question"), at("before")),
        None,
        (at("3"), at("question")),
    ]


def test_a_thread_at_work_says_what_comes_next() -> None:
    branches = Branches("thread", {1: Told("run1", 1, "then"), 2: Told("run2", 2, "now")}, {"c1": 1})
    said = [(1, {"content": "a"}), (1, {"content": "b"}), (2, {"content": "c"})]
    now = Tree(branches, said, going=True).now({"values": {"role": "coder"}, "checkpoint_id": "c1"})
    assert (now["next"], now["checkpoint_id"], now["parent_checkpoint_id"]) == (["generate"], "run2", "c1")
    assert now["values"] == {
        "role": "coder",
        "messages": [{"content": "a"}, {"content": "b"}, {"content": "c"}],
    }
