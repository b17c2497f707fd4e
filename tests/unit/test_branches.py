"""Which turns lead to a turn, and where a run at a checkpoint goes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import BadInput
from agentflow.runs.branches import Branches, Fork, Told

# 1 <- 3, 5 edits 3's question, 7 answers 5 again.
FORKED = Branches(
    "thread",
    {
        1: Told("run1", 1, ""),
        3: Told("run3", 3, ""),
        5: Told("run5", 5, "", follows=1),
        7: Told("run7", 7, "", follows=1, again=5),
    },
    {"c1": 1, "c3": 3, "c5": 5, "c7": 7},
)


@pytest.mark.parametrize(("seq", "path"), [(0, set()), (1, {1}), (3, {1, 3}), (5, {1, 5}), (7, {1, 7})])
def test_only_turns_that_lead_to_a_turn_are_on_its_path(seq, path) -> None:
    assert FORKED.path(seq) == path


@pytest.mark.parametrize(
    ("checkpoint", "fork"),
    [
        (None, Fork(None)),
        ("c7", Fork(None)),
        ("c3", Fork(3)),
        ("thread", Fork(0)),
        ("run3", Fork(1)),
    ],
)
def test_a_message_goes_on_from_its_checkpoint(checkpoint, fork) -> None:
    assert FORKED.fork(checkpoint, asks=True) == fork


@pytest.mark.parametrize(
    ("checkpoint", "fork"),
    [
        (None, Fork(1, 5)),
        ("run5", Fork(1, 5)),
        ("c3", Fork(1, 3)),
        ("run1", Fork(0, 1)),
    ],
)
def test_without_a_message_the_question_there_is_answered_again(checkpoint, fork) -> None:
    assert FORKED.fork(checkpoint, asks=False) == fork


@pytest.mark.parametrize(
    ("checkpoint", "asks"), [("elsewhere", True), ("elsewhere", False), ("thread", False)]
)
def test_there_must_be_such_a_place(checkpoint, asks) -> None:
    with pytest.raises(BadInput):
        FORKED.fork(checkpoint, asks=asks)


@given(st.lists(st.none() | st.integers(0, 30), max_size=15))
def test_a_path_ends_and_never_runs_forward(follows) -> None:
    turns = {
        seq: Told(f"run{seq}", seq, "", None if at is None else min(at, seq - 1))
        for seq, at in enumerate(follows, 1)
    }
    found = Branches("thread", turns)
    for seq in turns:
        assert max(found.path(seq)) == seq
