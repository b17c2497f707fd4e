"""The residency policy keeps its promises, whatever the state."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.residency.plan import Budgets, Move, Standing, Want, moves

GB = 1_000_000_000
ORDER = ("remote", "disk", "ram", "vram")


def used(standings, tier: str) -> int:
    inside = [one for one in standings if tier in one.tiers]
    if tier == "vram":
        return len(inside)
    return sum(one.octets for one in inside if tier == "ram" or one.source == "remote")


def made(standings, done: list[Move]) -> list[Standing]:
    """The standings after the moves."""
    found = {one.name: one for one in standings}
    for move in done:
        one = found[move.name]
        tiers = one.tiers | {move.tier} if move.do == "bring" else one.tiers - {move.tier}
        found[move.name] = replace(one, tiers=tiers)
    return list(found.values())


TIERS = st.sampled_from([(), ("disk",), ("disk", "ram"), ("disk", "vram"), ("disk", "ram", "vram")])
STANDINGS = st.lists(
    st.builds(
        Standing,
        name=st.text("abcd", min_size=1, max_size=2),
        octets=st.integers(1, 5),
        tiers=TIERS.map(frozenset),
        arriving=st.just(frozenset()),
        source=st.sampled_from(["disk", "remote"]),
        rest=st.sampled_from(ORDER),
        pin=st.none() | st.sampled_from(ORDER[1:]),
        holds=st.sampled_from([0, 0, 0, 1]),
        last_used=st.integers(0, 20).map(float),
        unload_after=st.none() | st.integers(0, 20).map(float),
        worth=st.integers(0, 5).map(float),
    ),
    unique_by=lambda one: one.name,
    max_size=7,
)
BUDGETS = st.builds(
    Budgets, vram=st.integers(0, 4), ram=st.integers(0, 12), disk=st.none() | st.integers(0, 12)
)
REASONS = st.sampled_from(["demand", "start", "schedule", "resume", "predicted"])
WANTS = st.lists(
    st.builds(Want, st.text("abcd", min_size=1, max_size=2), st.sampled_from(ORDER), REASONS), max_size=4
)
STATE = (STANDINGS, BUDGETS, WANTS, st.integers(0, 40).map(float))


@given(*STATE)
def test_no_move_leads_over_a_budget(standings, budgets, wants, now):
    now_there = standings
    for move in moves(standings, budgets, wants, now):
        before, now_there = now_there, made(now_there, [move])
        limit = {"vram": budgets.vram, "ram": budgets.ram, "disk": budgets.disk}[move.tier]
        after = used(now_there, move.tier)
        assert limit is None or after <= max(limit, used(before, move.tier) if move.do == "drop" else 0)


@given(*STATE)
def test_nothing_held_pinned_or_wanted_is_dropped(standings, budgets, wants, now):
    by_name = {one.name: one for one in standings}
    wanted = {want.name for want in wants}
    for move in moves(standings, budgets, wants, now):
        if move.do == "drop":
            one = by_name[move.name]
            assert (one.holds, one.pin == move.tier, one.name in wanted) == (0, False, False)


@given(*STATE)
def test_what_is_arriving_is_left_alone(standings, budgets, wants, now):
    coming = [replace(one, arriving=one.tiers) for one in standings]
    assert not [move for move in moves(coming, budgets, wants, now) if move.do == "drop"]


@given(*STATE)
def test_files_that_a_higher_tier_needs_stay(standings, budgets, wants, now):
    now_there = standings
    for move in moves(standings, budgets, wants, now):
        now_there = made(now_there, [move])
        if (move.do, move.tier) == ("drop", "disk"):
            assert not {"ram", "vram"} & next(one.tiers for one in now_there if one.name == move.name)


@given(*STATE)
def test_asked_again_with_the_same_wants_it_is_content(standings, budgets, wants, now):
    done = moves(standings, budgets, wants, now)
    assert moves(made(standings, done), budgets, wants, now) == []


@given(*STATE)
def test_a_guess_pushes_nobody_out(standings, budgets, wants, now):
    guesses = [replace(want, reason="predicted") for want in wants]
    assert not [move for move in moves(standings, budgets, guesses, now) if move.why == "room"]


@given(*STATE)
def test_only_a_waiting_turn_pushes_out_what_is_worth_as_much(standings, budgets, wants, now):
    wants = [replace(want, reason="start") for want in wants]
    by_name = {one.name: one for one in standings}
    done = moves(standings, budgets, wants, now)
    worths = [by_name[move.name].worth for move in done if move.do == "bring"]
    assert all(by_name[move.name].worth < max(worths) for move in done if move.why == "room")


@given(STANDINGS, BUDGETS)
def test_a_waiting_turn_gets_a_slot_if_one_is_free_or_can_be_freed(standings, budgets):
    budgets = replace(budgets, disk=None)
    for one in standings:
        done = moves(standings, budgets, [Want(one.name, "vram")], 0.0)
        others = [other for other in standings if other.name != one.name and "vram" in other.tiers]
        stuck = sum(bool(other.holds) or other.pin == "vram" for other in others)
        there = "vram" in next(two.tiers for two in made(standings, done) if two.name == one.name)
        assert there or stuck >= budgets.vram


@given(*STATE)
def test_the_way_up_begins_at_the_bottom(standings, budgets, wants, now):
    now_there = standings
    for move in moves(standings, budgets, wants, now):
        one = next(one for one in now_there if one.name == move.name)
        if move.do == "bring" and move.tier != "disk":
            assert one.source == "disk" or "disk" in one.tiers
        now_there = made(now_there, [move])


@given(*STATE)
def test_what_was_used_a_moment_ago_is_not_idle(standings, budgets, wants, now):
    fresh = [replace(one, last_used=now, unload_after=1.0) for one in standings]
    assert not [move for move in moves(fresh, budgets, wants, now) if move.why == "idle"]


# --- by example ------------------------------------------------------------------------------


def test_a_remote_adapter_comes_up_the_tiers_and_the_least_worth_makes_room():
    here = frozenset({"disk", "ram"})
    standings = [
        Standing("new", 2 * GB, source="remote"),
        Standing("dear", 2 * GB, tiers=here, worth=9.0),
        Standing("cheap", 2 * GB, tiers=here | {"vram"}, worth=1.0),
    ]
    assert moves(standings, Budgets(vram=1, ram=4 * GB), [Want("new", "vram")], 0.0) == [
        Move("bring", "new", "disk", "demand"),
        Move("drop", "cheap", "ram", "room"),
        Move("bring", "new", "ram", "demand"),
        Move("drop", "cheap", "vram", "room"),
        Move("bring", "new", "vram", "demand"),
    ]


def test_an_adapter_larger_than_the_ram_tier_goes_straight_to_the_engine():
    done = moves([Standing("big", 5)], Budgets(vram=1, ram=4), [Want("big", "vram")], 0.0)
    assert done == [Move("bring", "big", "vram", "demand")]


@pytest.mark.parametrize(("rest", "left"), [("vram", []), ("ram", ["vram"]), ("disk", ["vram", "ram"])])
def test_idle_adapters_go_down_to_where_they_rest(rest, left):
    one = Standing("a", 1, tiers=frozenset({"ram", "vram"}), rest=rest, unload_after=10.0)
    assert [move.tier for move in moves([one], Budgets(vram=2, ram=9), [], 10.0)] == left


def test_a_smaller_budget_relieves_the_tier():
    standings = [Standing(name, 1, tiers=frozenset({"ram"}), worth=worth) for worth, name in enumerate("abc")]
    done = moves(standings, Budgets(vram=1, ram=1), [], 0.0)
    assert done == [Move("drop", "a", "ram", "pressure"), Move("drop", "b", "ram", "pressure")]


def test_a_full_engine_still_lets_the_files_come_closer():
    busy = Standing("busy", 1, tiers=frozenset({"vram"}), holds=1)
    far = Standing("far", 1, source="remote")
    done = moves([busy, far], Budgets(vram=1, ram=9), [Want("far", "vram")], 0.0)
    assert [(move.do, move.tier) for move in done] == [("bring", "disk"), ("bring", "ram")]
