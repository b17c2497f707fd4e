"""Who leaves a full tier: the aged worth, least recently used, and Belady's order."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.residency.ranking import Ranking
from agentflow.residency.worth import AGEING, MEGABYTE, AgedWorth, Foreknown, Recency

MB = 32 * MEGABYTE


def everybody(_name: str) -> bool:
    return True


def wanted(order, name: str, now: float, *, seconds: float = 1.0, octets: float = MB) -> None:
    order.access(name, seconds=seconds, octets=octets, now=now)
    order.insert(name, seconds=seconds, octets=octets, now=now)


def test_what_is_quick_to_bring_back_leaves_first():
    order = AgedWorth()
    wanted(order, "far", 0, seconds=5.0)
    wanted(order, "near", 1, seconds=0.2)
    assert order.victim(everybody) == "near"


def test_in_bytes_the_large_leave_first_in_entries_size_is_nothing():
    for in_bytes, leaves in ((True, "large"), (False, "small")):
        order = AgedWorth(in_bytes=in_bytes)
        wanted(order, "small", 0, octets=MB)
        wanted(order, "large", 1, octets=4 * MB)
        assert order.victim(everybody) == leaves


def test_what_is_wanted_often_stays():
    order = AgedWorth()
    for now in range(3):
        wanted(order, "often", now)
    wanted(order, "once", 3)
    assert order.victim(everybody) == "once"


def test_of_equals_the_one_wanted_longest_ago_leaves():
    order = AgedWorth()
    wanted(order, "b", 0)
    wanted(order, "a", 1)
    assert order.victim(everybody) == "b"


def test_the_clock_rises_to_who_leaves_so_that_old_fame_is_outbid():
    order = AgedWorth(in_bytes=False)
    for now in range(3):
        wanted(order, "famous", now)
    for now in range(3, 7):
        wanted(order, f"new{now}", now)
        leaver = order.victim(everybody)
        order.evict(leaver)
        if leaver == "famous":
            return
    pytest.fail("old fame stayed for ever")


def test_who_left_for_another_reason_does_not_move_the_clock():
    order = AgedWorth(in_bytes=False)
    wanted(order, "a", 0, seconds=9.0)
    order.forget("a")
    wanted(order, "b", 1)
    assert order.priority("b") == 1.0


def test_counts_are_halved_after_a_hundred_accesses_per_resident():
    order = AgedWorth()
    for now in range(AGEING - 1):
        wanted(order, "a", now)
    assert order.count("a") == AGEING - 1
    wanted(order, "a", AGEING)
    assert order.count("a") == (AGEING - 1) / 2 + 1


def test_a_count_that_faded_is_dropped():
    order = AgedWorth()
    wanted(order, "once", 0)
    for now in range(1, 5 * AGEING):
        order.access("other", seconds=1.0, octets=MB, now=now)
    assert order.count("once") == 0.0


def test_a_count_outlives_an_eviction():
    order = AgedWorth()
    wanted(order, "a", 0)
    order.evict("a")
    wanted(order, "a", 1)
    assert order.count("a") == 2.0


def test_least_recently_used_leaves_first():
    order = Recency()
    for now, name in enumerate("aba"):
        wanted(order, name, now)
    assert order.victim(everybody) == "b"


def test_belady_gives_up_who_is_wanted_last():
    uses = {"soon": 3.0, "late": 9.0}
    order = Foreknown(uses)
    for now, name in enumerate(("soon", "late", "never")):
        wanted(order, name, now)
    assert order.victim(everybody) == "never"
    order.evict("never")
    assert order.victim(everybody) == "late"


def test_nobody_leaves_who_may_not():
    order = AgedWorth()
    wanted(order, "a", 0)
    assert order.victim(lambda _name: False) is None
    assert order.victim(everybody) == "a"


# --- against the plain definition ----------------------------------------------------------

STEPS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([0.2, 1.0, 5.0])), max_size=60)


@given(STEPS, st.integers(1, 4))
def test_the_order_is_that_of_the_plain_definition(steps, capacity):
    order, clock, counts, plain = AgedWorth(in_bytes=False), 0.0, Counter(), {}
    for now, (name, seconds) in enumerate(steps):
        order.access(name, seconds=seconds, octets=MB, now=now)
        counts[name] += 1
        if name not in plain and len(plain) == capacity:
            expected = min(plain, key=plain.__getitem__)
            assert order.victim(everybody) == expected
            order.evict(expected)
            clock = max(clock, plain.pop(expected)[0])
        if name not in plain:
            order.insert(name, seconds=seconds, octets=MB, now=now)
        plain[name] = (clock + counts[name] * seconds, now)
    assert {name: order.priority(name) for name in plain} == {name: key[0] for name, key in plain.items()}


def test_the_lowest_is_found_behind_many_that_may_not_go():
    ranking = Ranking()
    for place in range(500):
        ranking.put(f"{place:03}", (float(place),))
    assert ranking.lowest(lambda name: name >= "400") == "400"
    assert ranking.lowest(lambda _name: False) is None
    assert ranking.lowest(everybody) == "000"


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 9)), max_size=400),
    st.sets(st.sampled_from("abcdef")),
)
def test_a_ranking_finds_the_lowest_that_may_go(changes, staying):
    ranking, plain = Ranking(), {}
    for name, key in changes:
        if key is None:
            ranking.drop(name)
            plain.pop(name, None)
        else:
            ranking.put(name, (float(key),))
            plain[name] = ((float(key),), name)
        free = [entry for one, entry in plain.items() if one not in staying]
        assert ranking.lowest(lambda one: one not in staying) == (min(free)[1] if free else None)
