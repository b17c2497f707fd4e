"""A thread's history as newer clients list it, and where our own graph's checkpoints stand in it."""

from agentflow.runs.branches import Branches, Fork, Told, answered_at
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


ONE, TWO, THREE = (f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3))
PRUNED = Branches(
    "thread",
    {seq: Told(run, seq, "then", answered=True) for seq, run in ((1, ONE), (3, TWO), (5, THREE))},
    {"c5": 5},
)
SAID = [
    (seq, {"content": text}) for seq, text in ((1, "a"), (1, "b"), (3, "c"), (3, "d"), (5, "e"), (5, "f"))
]


def kept(ident: str) -> dict:
    return {
        "checkpoint_id": ident,
        "parent_checkpoint_id": None,
        "values": {},
        "created_at": "now",
        "next": [],
    }


def test_a_thread_whose_old_checkpoints_are_removed_shows_every_message() -> None:
    found = Tree(PRUNED, SAID).woven([kept("c5")], 10)
    answers = answered_at(ONE), answered_at(TWO)
    assert [one["checkpoint_id"] for one in found] == [
        "c5",
        THREE,
        answers[1],
        TWO,
        answers[0],
        ONE,
        "thread",
    ]
    assert [one["parent_checkpoint_id"] for one in found] == [
        THREE,
        answers[1],
        TWO,
        answers[0],
        ONE,
        "thread",
        None,
    ]
    assert ["".join(each["content"] for each in one["values"]["messages"]) for one in found] == [
        "abcdef", "abcde", "abcd", "abc", "ab", "a", "",
    ]  # fmt: skip


def test_a_page_of_the_history_ends_where_its_checkpoints_end() -> None:
    assert [one["checkpoint_id"] for one in Tree(PRUNED, SAID).woven([kept("c5")], 1)] == ["c5"]


def test_an_answer_whose_checkpoints_are_removed_can_be_followed_and_given_again() -> None:
    assert PRUNED.fork(answered_at(ONE), asks=True) == Fork(1)
    assert PRUNED.fork(TWO, asks=False) == Fork(1, 3)
    tree = Tree(PRUNED, SAID)
    shown = tree.virtual(answered_at(TWO))
    assert shown is not None
    assert [one["content"] for one in shown["values"]["messages"]] == ["a", "b", "c", "d"]
    assert tree.virtual("c5") is None


def test_what_was_written_by_hand_stands_behind_the_turn_before_it() -> None:
    branches = Branches("thread", {1: Told(ONE, 1, ""), 3: Told(TWO, 3, "")}, {"c1": 1, "c3": 3})
    found = Tree(branches, []).woven([kept("c3"), kept("hand"), kept("c1")], None)
    assert [one["checkpoint_id"] for one in found] == ["c3", TWO, "hand", "c1", ONE, "thread"]
