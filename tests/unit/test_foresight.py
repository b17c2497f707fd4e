"""Replays: what tiers and orders would have done to recorded requests."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.residency.foresight import Cargo, Outcome, SetUp, Visit, lru_alone, optimum, replay, share
from agentflow.residency.pace import Pace

MB = 1_000_000
PACE = Pace({"download": (5.0, 1e18), "copy": (0.5, 1e18), "load": (0.02, 1e18)})
CARGO = {name: Cargo(10 * MB) for name in "abc"} | {"far": Cargo(10 * MB, remote=True)}
ROOM = SetUp(slots=2, ram=100 * MB, speaks=0.0)


def visits(names: str | list[str], every: float = 10.0) -> list[Visit]:
    return [Visit(place * every, name) for place, name in enumerate(names)]


def mean(names: str | list[str], setup: SetUp, every: float = 10.0) -> float:
    return replay(visits(names, every), CARGO, setup, pace=PACE).mean


def test_the_first_visit_costs_the_way_up_the_second_nothing():
    found = replay(visits("aa"), CARGO, ROOM, pace=PACE)
    assert found == Outcome(2, pytest.approx(260), pytest.approx(494), pytest.approx(514.8), 0.5, 0.5)


def test_what_waits_in_ram_is_back_at_once():
    assert mean("abca", ROOM) == pytest.approx((3 * 520 + 20) / 4)


def test_a_download_is_paid_once_with_a_disk_cache_and_always_without():
    setup = replace(ROOM, slots=1, ram=10 * MB)
    assert mean(["far", "a", "far"], setup) == pytest.approx((5520 + 520 + 520) / 3)
    assert mean(["far", "a", "far"], lru_alone(setup)) == pytest.approx((5520 + 520 + 5520) / 3)


def test_what_retrieval_hides_is_not_added():
    assert mean("a", replace(ROOM, overlap=0.5)) == pytest.approx(20)


def test_a_pinned_adapter_is_there_from_the_first_visit_to_the_last():
    found = replay(visits("abcabca"), CARGO, replace(ROOM, pins=frozenset("a")), pace=PACE)
    assert found.missed == pytest.approx(4 / 7)


def test_idle_adapters_leave_and_come_back_from_where_they_rest():
    idle = replace(ROOM, unload_after={"a": 5.0})
    assert mean("aa", idle) == pytest.approx((520 + 20) / 2)
    assert mean("aa", replace(idle, rests_below=frozenset("a"))) == pytest.approx(520)


def test_nobody_is_pushed_out_while_it_speaks():
    setup = replace(ROOM, slots=1, speaks=30.0)
    found = replay([Visit(0.0, "a"), Visit(1.0, "b")], CARGO, setup, pace=PACE)
    assert found.mean == pytest.approx((520 + 29520) / 2)


def test_an_adapter_larger_than_ram_goes_past_it():
    assert mean("abcabc", replace(ROOM, ram=MB, slots=3)) == pytest.approx(260)


def test_the_warm_up_counts_for_nothing():
    assert replay(visits("aa"), CARGO, ROOM, pace=PACE, warm_up=0.5).mean == 0


def test_no_visits_are_no_failure():
    nothing = replay([], CARGO, ROOM)
    assert (nothing.visits, share(nothing, nothing)) == (0, 1.0)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=80), st.integers(1, 4), st.integers(1, 5))
def test_no_order_misses_less_than_the_optimum(names, slots, ram):
    """Belady's theorem, for equal sizes and costs."""
    cargo = {name: Cargo(MB) for name in "abcdefgh"}
    for order in ("lru", "worth"):
        setup = SetUp(slots, ram * MB, vram_order=order, ram_order=order, speaks=0.0)
        best = replay(visits(names), cargo, optimum(setup))
        assert best.missed <= replay(visits(names), cargo, setup).missed
