"""What becomes of a thread's open runs when another one comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.runs.multitask import Decision, decide

RUNS = st.lists(st.uuids().map(str), unique=True, max_size=5)


@given(RUNS)
def test_a_run_waits_for_all_before_it_unless_it_says_otherwise(runs: list[str]) -> None:
    assert decide(runs, "enqueue") == Decision()


@given(RUNS)
def test_reject_refuses_exactly_while_something_is_open(runs: list[str]) -> None:
    assert decide(runs, "reject") == Decision(refused=bool(runs))


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
@given(runs=RUNS)
def test_a_newer_run_stops_all_that_are_open(strategy: str, runs: list[str]) -> None:
    decision = decide(runs, strategy)
    assert (decision.refused, decision.stopped) == (False, tuple(runs))
    assert not runs or decision.how == strategy
