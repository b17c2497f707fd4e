"""Advice from recorded turns: replayed, compared with the optimum, and drawn."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.residency.advice import Advice, RoleAdvice, advise
from agentflow.residency.foresight import Cargo, SetUp, Visit
from agentflow.residency.picture import bars

MB = 1_000_000
TODAY = SetUp(slots=2, ram=0.0, speaks=0.0)


def turns(names: str, every: float = 20.0) -> list[Visit]:
    return [Visit(place * every, name) for place, name in enumerate(names)]


def asked(names: str, today: SetUp = TODAY, every: float = 20.0) -> Advice:
    return advise(turns(names, every), {name: Cargo(10 * MB) for name in "abcd"}, today)


def role(advice: Advice, name: str) -> RoleAdvice:
    return next(one for one in advice.roles if one.role == name)


def test_four_lines_from_the_engine_alone_to_the_optimum():
    found = asked("abcd" * 30)
    assert [line.name for line in found.lines] == ["the engine's LRU alone", "today", "advised", "optimum"]
    assert found.lines[-1].share == 1.0
    engine, today, advised, _best = (line.outcome.mean for line in found.lines)
    assert engine >= today > advised


def test_ram_is_advised_where_adapters_take_turns():
    found = asked("abcd" * 30)
    assert found.ram == 40 * MB
    assert role(found, "d").location == "ram"


def test_a_role_nobody_wanted_rests_on_disk_and_waits_for_demand():
    assert role(asked("abab" * 10), "d") == RoleAdvice(
        "d", 0, None, "disk", "demand", pin=False, unload_after=60.0
    )


def test_the_shortest_time_out_that_costs_nothing_is_advised():
    assert role(asked("a" * 40, replace(TODAY, slots=1), every=400.0), "a").unload_after == 600.0


def test_pins_leave_a_slot():
    found = asked("abac" * 40, replace(TODAY, slots=1))
    assert not any(one.pin for one in found.roles)


def test_gaps_are_medians_of_seconds():
    assert role(asked("abab"), "a").gap == pytest.approx(40.0)


def test_visits_of_roles_that_are_gone_are_left_out():
    assert advise(turns("axxa"), {"a": Cargo(MB)}, TODAY).visits == 2


def test_an_empty_ledger_gives_advice_about_nothing():
    found = asked("")
    assert (found.visits, {line.share for line in found.lines}) == (0, {1.0})


@given(st.text("abcd", max_size=60), st.integers(1, 3), st.integers(0, 40))
def test_advice_is_never_worse_than_today(names, slots, ram):
    """Of what is tried, today's tiers with all the RAM and no time-out is one."""
    _engine, today, advised, _best = asked(names, SetUp(slots, ram * MB, speaks=0.0)).lines
    assert advised.outcome.mean <= 1.05 * today.outcome.mean + 1e-6


def test_the_picture_is_well_formed_and_names_every_line():
    found = asked("abcd" * 5)
    texts = [one.text for one in ET.fromstring(bars(found)).iter() if one.tag.endswith("text")]  # noqa: S314 - ours
    assert [line.name for line in found.lines] == texts[1::2]


def test_the_picture_of_nothing_is_well_formed():
    assert ET.fromstring(bars(asked(""))).tag.endswith("svg")  # noqa: S314 - ours
