"""Seats for runs: never more than there are, none lost, and whoever waits gets one in turn."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from agentflow.runs.seats import Seats


def test_a_seat_goes_to_who_has_waited_longest() -> None:
    seats, waiters = Seats(1), [asyncio.Event() for _ in range(3)]
    assert seats.take()
    assert [seats.take(one) for one in waiters] == [False] * 3
    seats.give()
    assert [one.is_set() for one in waiters] == [True, False, False]
    assert (seats.take(), seats.take(waiters[1]), seats.take(waiters[0])) == (False, False, True)


def test_a_seat_that_was_meant_for_somebody_who_left_goes_on() -> None:
    seats, (first, second) = Seats(1), [asyncio.Event() for _ in range(2)]
    seats.take()
    for one in (first, second):
        seats.take(one)
    seats.give()
    seats.leave(first)
    assert (second.is_set(), seats.take(second)) == (True, True)


@given(st.lists(st.tuples(st.sampled_from(["come", "give", "take", "leave"]), st.integers(0, 4))))
def test_never_more_sit_than_there_are_seats_and_nobody_waits_beside_a_free_one(moves) -> None:
    seats, people, sitting = Seats(2), [asyncio.Event() for _ in range(5)], set()
    for move, who in moves:
        if move in ("come", "take") and who not in sitting and seats.take(people[who]):
            sitting.add(who)
        elif move == "give" and sitting:
            sitting.pop()
            seats.give()
        elif move == "leave" and who not in sitting:
            seats.leave(people[who])
        assert seats.taken == len(sitting) + len(seats.handed) <= 2
        assert not (seats.waiting and seats.taken < 2)
