"""A client's transcript against the stored thread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.api.openai.reconcile import Verdict, reconcile, same

A, B, C, D, X = (("ask " + one, "say " + one) for one in "abcdx")
TURNS = st.lists(st.sampled_from([A, B, C, D, X]), max_size=6)


@pytest.mark.parametrize(
    ("said", "stored", "verdict"),
    [
        ([], [], Verdict("append", 0)),
        ([A], [], Verdict("append", 0)),
        ([A, B], [A, B], Verdict("append", 2, 2)),
        ([A], [A, B], Verdict("branch", 1, 1)),  # the answer of B is asked for again, or B was edited
        ([A, X, C], [A, B, C], Verdict("branch", 1, 1)),  # an earlier turn was edited
        ([B, C], [A, B, C], Verdict("append", 3, 2)),  # the client cut off the beginning
        ([B], [A, B, C], Verdict("branch", 2, 1)),
        ([A, B, C], [A, B], Verdict("append", 2, 2)),  # C was made elsewhere
        ([X, D], [A, B], Verdict("branch", 0)),  # another chat
        ([], [A], Verdict("branch", 0)),  # the first message was edited
        ([A, B, A], [A, B, A], Verdict("append", 3, 3)),
        ([A], [A, B, A], Verdict("append", 3, 1)),  # of equal places the thread's end
    ],
)
def test_where_a_message_goes(said, stored, verdict) -> None:
    assert reconcile(said, stored, whole=True) == verdict


def test_a_client_that_sends_only_what_is_new_goes_on() -> None:
    assert reconcile([], [A, B], whole=False) == Verdict("append", 2)


def test_a_message_that_was_wrapped_in_documents_is_still_the_same() -> None:
    assert same(("how tall?", "2 m"), ("### Documents: giraffes how tall?", "2 m"))
    assert not same(("how tall?", "2 m"), ("how tall?", "3 m"))


@given(TURNS, TURNS, st.booleans())
def test_afterwards_the_thread_ends_with_what_the_client_shows(said, stored, whole) -> None:
    verdict = reconcile(said, stored, whole=whole)
    now = [*stored[: verdict.keep], *said[verdict.known :]]
    assert now[len(now) - len(said) :] == said


@given(TURNS, TURNS, st.booleans())
def test_going_on_loses_nothing(said, stored, whole) -> None:
    verdict = reconcile(said, stored, whole=whole)
    assert 0 <= verdict.keep <= len(stored)
    assert 0 <= verdict.known <= len(said)
    assert (verdict.kind == "append") == (verdict.keep == len(stored))


@given(TURNS, TURNS)
def test_a_client_that_agrees_goes_on_with_what_it_adds(stored, more) -> None:
    verdict = reconcile([*stored, *more], stored, whole=True)
    assert verdict.kind == "append" or not stored


@given(TURNS.filter(len), st.integers(1, 6))
def test_a_window_of_the_thread_goes_on(stored, size) -> None:
    assert reconcile(stored[-size:], stored, whole=True).kind == "append"
