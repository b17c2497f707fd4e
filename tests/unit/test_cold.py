"""Cold adapters: how long they take, and what a turn does about it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.residency.cold import ColdPolicy, Verdict, decide, overrun, patience
from agentflow.residency.pace import ALPHA, Pace, eta

MB = 1e6


def test_before_anything_is_measured_the_seeds_tell():
    pace = Pace()
    assert pace.seconds("download", 50 * MB) == pytest.approx(6.0)
    assert pace.seconds("copy", 100 * MB) == pytest.approx(0.7)


def test_the_first_measurement_replaces_the_seed_for_every_size():
    pace = Pace()
    pace.learn("copy", 100 * MB, 0.07)
    assert pace.seconds("copy", 100 * MB) == pytest.approx(0.07)
    assert pace.seconds("copy", 0) == pytest.approx(0.02)


def test_later_measurements_move_the_average_by_a_fifth():
    pace = Pace()
    pace.learn("load", 0, 0.02)
    pace.learn("load", 0, 0.12)
    assert pace.seconds("load", 0) == pytest.approx(0.02 + ALPHA * 0.10)


def test_an_estimate_is_the_missing_steps_behind_the_queue():
    assert eta(Pace(), ["copy", "load"], 0, queue=1.0) == pytest.approx(1.22)


@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e4)), max_size=20),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
)
def test_estimates_stay_positive_and_grow_with_the_size(measured, one, other):
    pace = Pace()
    for octets, seconds in measured:
        pace.learn("download", octets, seconds)
    small, large = sorted((one, other))
    assert 0 <= pace.seconds("download", small) <= pace.seconds("download", large)


POLICIES = st.builds(
    ColdPolicy,
    budget=st.floats(0, 5),
    do=st.sampled_from(["wait", "base", "fallback", "refuse"]),
    longest=st.floats(5, 60),
    fallback=st.none() | st.just("generalist"),
)


@given(POLICIES, st.floats(0, 100))
def test_within_the_budget_everybody_waits(policy, seconds):
    verdict = decide(policy, seconds)
    assert (
        (verdict.do == "wait")
        if seconds <= policy.budget
        else (verdict.do == "wait") == (policy.do == "wait")
    )


@given(POLICIES, st.floats(0, 100), st.floats(0, 100), st.booleans())
def test_nobody_waits_longer_than_the_longest(policy, seconds, waited, ready):
    assert patience(policy, seconds) <= policy.longest
    verdict = overrun(policy, seconds, waited, fallback_ready=ready)
    assert verdict.do != "wait" or waited + seconds <= policy.longest


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [
        (ColdPolicy(do="wait", longest=20.0), Verdict("wait")),
        (ColdPolicy(do="base"), Verdict("base")),
        (ColdPolicy(do="fallback", fallback="lawyer"), Verdict("fallback", role="lawyer")),
        (ColdPolicy(do="refuse"), Verdict("refuse")),
    ],
)
def test_beyond_the_budget_the_policy_decides(policy, verdict):
    assert decide(policy, 4.2, fallback_ready=True) == verdict


def test_a_fallback_that_is_cold_itself_gives_way_to_the_base():
    assert decide(ColdPolicy(do="fallback", fallback="lawyer"), 9.0, fallback_ready=False) == Verdict("base")


def test_a_wait_that_cannot_end_in_time_is_refused():
    assert overrun(ColdPolicy(longest=10.0), 4.0, 8.0) == Verdict("refuse")


def test_an_estimate_may_be_wrong_by_three_before_who_has_a_choice_gives_up():
    assert patience(ColdPolicy(budget=1.5, do="base"), 1.0) == 3.0
    assert patience(ColdPolicy(budget=1.5, do="wait", longest=20.0), 1.0) == 20.0
