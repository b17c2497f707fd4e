"""The keeper under any sequence of turns, clocks, edits and failures: what must never happen does not."""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentflow.errors import AgentflowError, EngineDown
from agentflow.fakes.adapter import fake_adapter
from agentflow.fakes.engine import FakeEngine
from agentflow.residency.cold import ColdPolicy
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.plan import Budgets
from agentflow.residency.roster import Residence

ROLES = ("a", "b", "c", "d")
SLOTS, RAM = 2, 250
QUICK = Residence(unload_after=5.0, cold=ColdPolicy(longest=0.02))
PATIENT = Residence(unload_after=5.0, cold=ColdPolicy(longest=30.0))
acts = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "hold",
                "release",
                "warm",
                "guess",
                "resume",
                "wait",
                "pin",
                "unpin",
                "unload",
                "forget",
                "fail",
                "edit",
            ]
        ),
        st.sampled_from(ROLES),
    ),
    max_size=25,
)


class Watched(FakeEngine):
    """Raises on what would hurt: one too many, or an adapter taken away that somebody holds."""

    def __init__(self) -> None:
        super().__init__(check_files=False)
        self.held: list[str] = []
        self.harm: list[str] = []

    async def load(self, name: str, folder: Path, *, tier="vram") -> None:
        if tier == "ram" and name in self.held and self.tiers.get(name) == "vram":
            self.harm.append(f"{name} was taken out of VRAM while it was held")
        await super().load(name, folder, tier=tier)
        if sum(where == "vram" for where in self.tiers.values()) > SLOTS:
            self.harm.append(f"{name} is one too many")

    async def unload(self, name: str) -> None:
        if name in self.held:
            self.harm.append(f"{name} was unloaded while it was held")
        await super().unload(name)


class Player:
    """Plays acts on a keeper, and looks after each."""

    def __init__(self) -> None:
        self.engine = Watched()
        self.now = 0.0
        self.digests = dict.fromkeys(ROLES, "1")
        self.keeper = AdapterKeeper(self.engine, self.roster(), Budgets(SLOTS, RAM), clock=lambda: self.now)
        self.holds: list[tuple[str, AsyncExitStack]] = []

    def roster(self, residence: Residence = QUICK):
        return {role: fake_adapter(role, self.digests[role], residence=residence) for role in ROLES}

    async def play(self, act: str, role: str) -> None:
        try:
            await getattr(self, f"_{act}")(role)
        except AgentflowError:
            self.engine.load_failure = None
        await asyncio.sleep(0)
        held = [name for name, _ in self.holds]
        ram = sum(place.octets for place in self.keeper.places() if "ram" in place.tiers)
        assert (self.engine.harm, ram <= RAM) == ([], True)
        assert all(self.engine.tiers.get(name) == "vram" for name in held)

    async def _hold(self, role: str) -> None:
        stack = AsyncExitStack()
        name = await stack.enter_async_context(self.keeper.hold(role))
        self.engine.held.append(name)
        self.holds.append((name, stack))

    async def _release(self, _role: str) -> None:
        if self.holds:
            name, stack = self.holds.pop(0)
            self.engine.held.remove(name)
            await stack.aclose()

    async def _warm(self, role: str) -> None:
        self.keeper.warm(role)

    async def _guess(self, role: str) -> None:
        self.keeper.foresee(role)

    async def _resume(self, role: str) -> None:
        self.keeper.resume(role)

    async def _wait(self, _role: str) -> None:
        self.now += 7.0
        await self.keeper.sweep()

    async def _pin(self, role: str) -> None:
        await self.keeper.pin(role, "vram")

    async def _unpin(self, role: str) -> None:
        await self.keeper.pin(role, None)

    async def _unload(self, role: str) -> None:
        if not any(name.startswith(role) for name, _ in self.holds):
            await self.keeper.unload(role)

    async def _forget(self, _role: str) -> None:
        if not self.holds:
            self.engine.forget()
            await self.keeper.reconcile()

    async def _fail(self, _role: str) -> None:
        self.engine.load_failure = EngineDown("connection refused")

    async def _edit(self, role: str) -> None:
        self.digests[role] = str(int(self.digests[role]) % 3 + 1)
        self.keeper.adopt(self.roster())


STUCK = "guess a fail a fail a edit a unload a unload a guess a pin c warm a unload b edit d forget a warm d wait a"
"""Once, two that spoke and rest in memory, which was full, could not leave VRAM for a turn that waited."""
RACE = "warm b forget a release a release a forget a hold b"
"""Once, what the engine forgot in the very step in which it had arrived was believed to speak."""

LATE = "edit c fail a edit c unload c guess d warm c release a hold c edit d warm b release c edit a wait d"
"""Once, the patience of a turn ended in the very step in which it heard news, and was lost: it waited for ever."""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(acts)
@example(list(zip(STUCK.split()[::2], STUCK.split()[1::2], strict=True)))
@example(list(zip(RACE.split()[::2], RACE.split()[1::2], strict=True)))
@example(list(zip(LATE.split()[::2], LATE.split()[1::2], strict=True)))
def test_no_sequence_of_events_hurts(played) -> None:
    async def run() -> None:
        player = Player()
        for act, role in played:
            await player.play(act, role)
        while player.holds:
            await player.play("release", "a")
        player.engine.load_failure = None
        player.keeper.adopt(player.roster(PATIENT))
        for place in list(player.keeper.places()):
            if place.pin:
                await player.keeper.pin(place.role, None)
        await player.keeper.settled()
        player.now += 100.0
        await player.keeper.reconcile()
        for role in ROLES:
            async with player.keeper.hold(role) as name:
                assert player.engine.tiers[name] == "vram"
        await player.keeper.settled()
        assert [place.holds + place.waiting for place in player.keeper.places() if place.holds] == []
        await player.keeper.close()

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_traffic_the_keepers_view_is_the_engines(seed) -> None:
    player, dice = Player(), random.Random(seed)  # noqa: S311 - a seed, so that it can be repeated
    for _ in range(60):
        await player.play(
            dice.choice(["hold", "release", "warm", "wait", "guess", "unload"]), dice.choice(ROLES)
        )
    while player.holds:
        await player.play("release", "a")
    await player.keeper.settled()
    ours = {place.name: place.tier for place in player.keeper.places() if place.tier in ("vram", "ram")}
    assert ours == {name: player.engine.tiers[name] for name in player.engine.folders}
    await player.keeper.close()
