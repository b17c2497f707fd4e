"""The keeper: who is in, who waits, who leaves."""

import asyncio
from collections.abc import Sequence

import pytest

from agentflow.errors import InvalidAdapter
from agentflow.fakes.adapter import fake_adapter
from agentflow.fakes.engine import FakeEngine
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.plan import Budgets
from agentflow.residency.roster import Residence

ROLES = ("philosopher", "coder", "artist")


def keeper(
    slots: int, *, residence: Residence | None = None, roles: Sequence[str] = ROLES, **engine: object
) -> AdapterKeeper:
    roster = {role: fake_adapter(role, residence=residence or Residence(rest="disk")) for role in roles}
    made = FakeEngine(check_files=False, **engine)
    return AdapterKeeper(made, {**roster, "plain": None}, Budgets(slots, 0))


def calls(kept: AdapterKeeper) -> list[tuple[str, str | None]]:
    assert isinstance(kept.engine, FakeEngine)
    return kept.engine.calls


async def test_an_adapter_is_loaded_once_for_all_who_want_it() -> None:
    kept = keeper(2, load_delay=0.01)

    async def use() -> None:
        async with kept.hold("coder"):
            pass

    await asyncio.gather(*(use() for _ in range(20)))
    assert calls(kept) == [("load", "coder@1")]


async def test_a_role_without_adapter_holds_nothing() -> None:
    kept = keeper(1)
    async with kept.hold("plain") as name:
        assert (name, kept.tier("plain"), calls(kept)) == (None, "base", [])


async def test_warming_loads_before_anybody_holds() -> None:
    kept = keeper(2)
    kept.warm("coder")
    assert kept.tier("coder") == "disk"
    await kept.settled()
    assert (kept.tier("coder"), calls(kept)) == ("vram", [("load", "coder@1")])


async def test_the_least_recently_used_makes_room() -> None:
    kept = keeper(2)
    for role in ("philosopher", "coder", "philosopher", "artist"):
        async with kept.hold(role):
            pass
    assert calls(kept)[-2:] == [("unload", "coder@1"), ("load", "artist@1")]


async def test_a_held_adapter_stays_and_the_newcomer_waits() -> None:
    kept = keeper(1)
    async with kept.hold("coder"):
        waiting = asyncio.create_task(kept.hold("artist").__aenter__())
        await asyncio.sleep(0.01)
        assert (waiting.done(), calls(kept)) == (False, [("load", "coder@1")])
    assert await asyncio.wait_for(waiting, 60) == "artist@1"


async def test_a_resident_is_held_at_once_while_another_loads() -> None:
    kept = keeper(2)
    async with kept.hold("coder"):
        pass
    assert isinstance(kept.engine, FakeEngine)
    kept.engine.load_delay = 3600
    kept.warm("artist")
    async with asyncio.timeout(60), kept.hold("coder") as name:
        assert name == "coder@1"
    await kept.close()


async def test_a_failed_load_reaches_every_waiter_and_the_next_one_tries_again() -> None:
    kept = keeper(1)
    assert isinstance(kept.engine, FakeEngine)
    kept.engine.load_failure = InvalidAdapter("broken")
    kept.warm("coder")
    with pytest.raises(InvalidAdapter):
        async with kept.hold("coder"):
            pass
    kept.engine.load_failure = None
    async with kept.hold("coder") as name:
        assert name == "coder@1"


async def test_a_cancelled_waiter_leaves_the_load_to_the_others() -> None:
    kept = keeper(1, load_delay=0.05)
    first = asyncio.create_task(kept.hold("coder").__aenter__())
    await asyncio.sleep(0.01)
    first.cancel()
    async with kept.hold("coder"):
        assert calls(kept) == [("load", "coder@1")]
    assert [place.holds for place in kept.places()] == [0, 0, 0]


async def test_what_is_idle_for_its_time_is_unloaded() -> None:
    now = [0.0]
    kept = keeper(3, residence=Residence(rest="disk", unload_after=10.0))
    kept.clock = lambda: now[0]
    await kept.pin("artist", "vram")
    for role in ("coder", "artist"):
        async with kept.hold(role):
            pass
    now[0] = 10.0
    await kept.sweep()
    assert [call for call in calls(kept) if call[0] == "unload"] == [("unload", "coder@1")]


async def test_a_bad_adapter_is_told_when_it_is_wanted() -> None:
    kept = AdapterKeeper(FakeEngine(), {"coder": InvalidAdapter("rank 128 is over 64")}, Budgets(1))
    kept.warm("coder")
    with pytest.raises(InvalidAdapter, match="rank 128"):
        async with kept.hold("coder"):
            pass
