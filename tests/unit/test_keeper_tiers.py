"""The keeper over all tiers: remote, disk, memory, engine."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agentflow.adapters import AdapterFiles
from agentflow.errors import ColdAdapter, Conflict, EngineDown, FetchFailed, NoRoom, UnknownRole
from agentflow.fakes.adapter import fake_adapter, fake_files
from agentflow.fakes.engine import FakeEngine
from agentflow.protocols import Capabilities
from agentflow.residency.carrier import Shelves
from agentflow.residency.cold import ColdPolicy
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.plan import Budgets
from agentflow.residency.roster import Adapter, Residence

FLAT = Capabilities(runtime_load=True, unload_frees=True, pin=True, exact_list=True, mixed_batch=True)


@dataclass
class Disk:
    """A disk cache that fetches what it is told to, or fails."""

    digest: str = "1"
    octets: int = 100
    gate: asyncio.Event | None = None
    failure: FetchFailed | None = None
    kept: dict[str, AdapterFiles] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def find(self, address: str) -> AdapterFiles | None:
        return self.kept.get(address)

    def want(self, addresses) -> None:
        self.wanted = list(addresses)

    def drop(self, address: str) -> None:
        self.calls.append(f"drop {address}")
        self.kept.pop(address, None)

    async def weigh(self, address: str) -> int:
        return self.octets

    async def fetch(self, address: str, expected: str | None = None) -> AdapterFiles:
        self.calls.append(f"fetch {address}")
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.kept[address] = fake_files(address[5:], self.digest, octets=self.octets)
        return self.kept[address]


@dataclass
class Memory:
    """Copies in memory that remember the order of what was done."""

    calls: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    full: bool = False

    def copies(self) -> dict[str, int]:
        return self.left

    def put(self, name: str, files: Path) -> Path:
        self.calls.append(f"put {name}")
        if self.full:
            raise NoRoom("tmpfs is full")
        return Path("/pool") / name

    def link(self, name: str, files: Path) -> Path:
        self.calls.append(f"link {name}")
        return Path("/pool") / name

    def drop(self, name: str, back_to: Path) -> None:
        self.calls.append(f"drop {name}")

    def forget(self, names) -> None:
        self.calls += [f"forget {name}" for name in names]

    def strays(self, known) -> list[str]:
        return sorted(set(self.left) - set(known))


@dataclass
class House:
    """A keeper with everything around it."""

    keeper: AdapterKeeper
    engine: FakeEngine
    disk: Disk
    memory: Memory
    now: list[float]

    async def use(self, role: str) -> str | None:
        async with self.keeper.hold(role) as name:
            return name

    async def settled(self) -> None:
        await self.keeper.settled()


def far(role: str, **residence: object) -> Adapter:
    return Adapter(role, None, f"hf://{role}", residence=Residence(**residence))


@pytest.fixture
async def house(monkeypatch) -> Callable[..., House]:
    """A function that builds one; files of fetched adapters are said to be there."""
    monkeypatch.setattr("agentflow.residency.wishes.stamp_of", lambda _: ((1, 1),))
    built: list[House] = []

    def build(*adapters: Adapter, slots: int = 2, ram: int = 1000, disk: int = 1000, **engine) -> House:
        now, shelf, memory = [0.0], Disk(), Memory()
        made = FakeEngine(check_files=False, **engine)
        made.capabilities = FLAT
        kept = AdapterKeeper(
            made,
            {one.role: one for one in adapters},
            Budgets(slots, ram, disk),
            shelves=Shelves(shelf, memory),
            clock=lambda: now[0],
        )
        built.append(House(kept, made, shelf, memory, now))
        return built[-1]

    yield build
    for one in built:
        await one.keeper.close()


def tiers(house: House) -> dict[str, str]:
    return {place.role: house.keeper.tier(place.role) for place in house.keeper.places()}


async def test_from_far_away_into_the_engine_in_one_hold(house) -> None:
    h = house(far("legal"))
    assert (h.keeper.tier("legal"), h.keeper.identity("legal")) == ("remote", None)
    assert await h.use("legal") == "legal@1"
    assert h.disk.calls == ["fetch hf://legal"]
    assert h.memory.calls == ["put legal@1", "put legal@1"]
    assert h.engine.folders == {"legal@1": Path("/pool/legal@1")}
    assert h.keeper.tier("legal") == "vram"


async def test_at_start_everything_is_where_the_file_says(house) -> None:
    h = house(
        fake_adapter("fast", residence=Residence(rest="vram", at_start=True)),
        fake_adapter("near", residence=Residence(rest="ram")),
        fake_adapter("low", residence=Residence(rest="disk")),
        far("away", rest="remote"),
    )
    h.keeper.warm_at_start()
    await h.settled()
    assert tiers(h) == {"fast": "vram", "near": "ram", "low": "disk", "away": "remote"}


async def test_two_roles_with_the_same_files_are_two_adapters(house) -> None:
    h = house(fake_adapter("one", "abc"), fake_adapter("two", "abc"))
    assert (await h.use("one"), await h.use("two")) == ("one@abc", "two@abc")


async def test_two_roles_with_the_same_address_keep_its_files_while_one_needs_them(house) -> None:
    twins = [replace(far(role, rest="disk"), address="hf://twin") for role in ("one", "two")]
    h = house(*twins, far("big"), disk=150)
    await h.use("one")
    await h.use("two")
    with pytest.raises(NoRoom, match=r"model\.disk\.max = 150"):
        await h.use("big")
    assert "drop hf://twin" not in h.disk.calls


async def test_memory_gives_way_before_it_is_over_its_limit(house) -> None:
    h = house(*(fake_adapter(role, octets=400) for role in "abc"), slots=8)
    for role in "aabc":
        await h.use(role)
        h.now[0] += 1
    await h.settled()
    await h.keeper.unload("b")
    h.keeper.resume("b")
    await h.settled()
    held = [place.role for place in h.keeper.places() if "ram" in place.tiers]
    assert sum(400 for _ in held) <= 1000


async def test_a_full_memory_file_system_loads_from_disk(house) -> None:
    h = house(fake_adapter("coder"))
    h.memory.full = True
    assert await h.use("coder") == "coder@1"
    assert h.memory.calls == ["put coder@1", "link coder@1"]


async def test_what_is_too_large_for_memory_loads_from_disk(house) -> None:
    h = house(fake_adapter("huge", octets=5000))
    assert await h.use("huge") == "huge@1"
    assert h.memory.calls == ["link huge@1"]


async def test_a_copy_leaves_memory_only_after_the_engine_was_turned_to_the_disk(house) -> None:
    h = house(fake_adapter("a", octets=600), fake_adapter("b", octets=600))
    await h.use("a")
    h.now[0] += 1
    await h.use("b")
    assert h.memory.calls.index("drop a@1") < h.memory.calls.index("put b@1")
    assert h.keeper.tier("a") == "vram"


async def test_a_failed_download_is_told_and_not_hammered(house) -> None:
    h = house(far("legal"))
    h.disk.failure = FetchFailed("broke off", retry_after=5)
    for _ in range(3):
        with pytest.raises(FetchFailed, match="broke off"):
            await h.use("legal")
    assert h.disk.calls == ["fetch hf://legal"]
    h.now[0], h.disk.failure = 10.0, None
    assert await h.use("legal") == "legal@1"


async def test_new_weights_take_over_once_they_are_here(house) -> None:
    h = house(far("legal"))
    await h.use("legal")
    h.disk.gate = asyncio.Event()
    h.disk.digest = "2"
    h.keeper.adopt({"legal": replace(far("legal"), address="hf://legal-v2")})
    assert await h.use("legal") == "legal@1"
    h.disk.gate.set()
    await h.settled()
    assert await h.use("legal") == "legal@2"


async def test_new_weights_that_never_come_leave_the_old_ones_serving(house) -> None:
    h = house(far("legal"))
    await h.use("legal")
    h.disk.failure = FetchFailed("no such repository")
    h.keeper.adopt({"legal": replace(far("legal"), address="hf://typo")})
    await h.settled()
    assert await h.use("legal") == "legal@1"


async def test_a_role_removed_while_it_answers_ends_with_its_adapter(house) -> None:
    h = house(fake_adapter("coder"))
    async with h.keeper.hold("coder") as name:
        h.keeper.adopt({})
        await h.keeper.sweep()
        assert (name in h.engine.folders, h.keeper.tier("coder")) == (True, "base")
    await h.settled()
    assert h.engine.folders == {}
    with pytest.raises(UnknownRole):
        await h.use("coder")


async def test_a_turn_that_chose_before_the_file_changed_gets_what_it_chose(house) -> None:
    h = house(fake_adapter("coder", "1"))
    h.keeper.warm("coder")
    chosen = h.keeper.identity("coder")
    h.keeper.adopt({"coder": fake_adapter("coder", "2")})
    async with h.keeper.hold("coder", name=chosen) as name:
        assert name == "coder@1"
    assert await h.use("coder") == "coder@2"


async def test_other_rules_for_the_same_weights_move_nothing(house) -> None:
    h = house(fake_adapter("coder"))
    await h.use("coder")
    h.keeper.adopt({"coder": fake_adapter("coder", residence=Residence(rest="vram", unload_after=None))})
    h.now[0] = 10_000.0
    await h.keeper.sweep()
    assert [call for call, _ in h.engine.calls] == ["load"]


async def test_unloading_waits_for_the_turns_and_refuses_the_pinned(house) -> None:
    h = house(fake_adapter("coder"), fake_adapter("artist"))
    hold = h.keeper.hold("coder")
    await hold.__aenter__()
    leaving = asyncio.create_task(h.keeper.unload("coder"))
    await asyncio.sleep(0.01)
    assert "coder@1" in h.engine.folders
    await hold.__aexit__(None, None, None)
    await leaving
    assert h.engine.folders == {}
    await h.keeper.pin("coder", "vram")
    await h.settled()
    with pytest.raises(Conflict, match="is pinned"):
        await h.keeper.unload("coder")


async def test_pins_leave_a_slot_for_the_others(house) -> None:
    h = house(*(fake_adapter(role) for role in "abc"), slots=2)
    await h.keeper.pin("a", "vram")
    with pytest.raises(NoRoom, match=r"leave no slot of 2"):
        await h.keeper.pin("b", "vram")
    await h.settled()
    assert h.engine.pinned == {"a@1"}
    await h.keeper.pin("a", None)
    assert h.engine.pinned == set()


async def test_every_slot_in_use_is_told_with_the_users(house) -> None:
    cold = ColdPolicy(longest=0.05)
    h = house(fake_adapter("a"), fake_adapter("b", residence=Residence(cold=cold)), slots=1)
    async with h.keeper.hold("a"):
        with pytest.raises(NoRoom, match=r"in use or pinned \(a\); b waited") as told:
            await h.use("b")
        assert told.value.retry_after is not None
    assert await h.use("b") == "b@1"


async def test_a_load_longer_than_the_roles_patience_is_a_503_and_goes_on(house) -> None:
    h = house(fake_adapter("coder", residence=Residence(cold=ColdPolicy(longest=0.02))), load_delay=0.1)
    with pytest.raises(ColdAdapter, match="The load goes on"):
        await h.use("coder")
    await h.settled()
    assert h.engine.calls == [("load", "coder@1")]
    assert await h.use("coder") == "coder@1"


async def test_a_guess_loads_into_memory_and_only_while_nothing_else_does(house) -> None:
    h = house(fake_adapter("a"), fake_adapter("b"), load_delay=0.01)
    h.keeper.warm("a")
    h.keeper.foresee("b")
    await h.settled()
    assert tiers(h) == {"a": "vram", "b": "disk"}
    h.keeper.foresee("b")
    await h.settled()
    assert tiers(h) == {"a": "vram", "b": "ram"}


async def test_a_guess_pushes_out_nobody(house) -> None:
    h = house(fake_adapter("a", octets=600), fake_adapter("b", octets=600))
    await h.use("a")
    h.keeper.foresee("b")
    await h.settled()
    assert tiers(h) == {"a": "vram", "b": "disk"}


async def test_warm_on_demand_only_is_never_guessed(house) -> None:
    h = house(fake_adapter("a", residence=Residence(foreseen=False)))
    h.keeper.foresee("a")
    await h.settled()
    assert tiers(h) == {"a": "disk"}


# --- the engine's own view


async def test_a_restarted_engine_gets_back_what_was_used_lately(house) -> None:
    h = house(fake_adapter("recent"), fake_adapter("old"), slots=2)
    await h.use("old")
    h.now[0] = 5000.0
    await h.use("recent")
    h.engine.forget()
    await h.keeper.reconcile()
    await h.settled()
    assert (list(h.engine.folders), h.keeper.tally.restarts) == (["recent@1"], 1)
    assert await h.use("old") == "old@1"


async def test_a_pinned_adapter_comes_back_pinned(house) -> None:
    h = house(fake_adapter("a"), fake_adapter("b"))
    await h.keeper.pin("a", "vram")
    await h.settled()
    h.engine.forget()
    await h.keeper.reconcile()
    await h.settled()
    assert (list(h.engine.folders), h.engine.pinned) == (["a@1"], {"a@1"})


async def test_an_engine_that_dies_in_the_middle_of_a_load_is_told_and_found_again(house) -> None:
    h = house(fake_adapter("coder"))
    h.engine.load_failure = EngineDown("connection refused")
    with pytest.raises(EngineDown):
        await h.use("coder")
    assert h.keeper.troubled.is_set()
    h.engine.load_failure = None
    await h.keeper.reconcile()
    assert await h.use("coder") == "coder@1"


async def test_an_engine_that_is_down_has_nothing(house) -> None:
    h = house(fake_adapter("coder"))
    await h.use("coder")
    h.engine.failure = EngineDown("connection refused")
    await h.keeper.reconcile()
    assert (h.keeper.tier("coder"), h.keeper.engine_fault) == ("ram", "connection refused")


async def test_what_is_not_ours_is_counted_and_left_alone(house) -> None:
    h = house(fake_adapter("coder"))
    await h.engine.load("stranger", Path("/elsewhere"))
    await h.keeper.reconcile()
    assert (h.keeper.tally.foreign, list(h.engine.folders)) == (1, ["stranger"])


async def test_an_adapter_of_ours_that_the_engine_kept_is_taken_over(house) -> None:
    h = house(fake_adapter("coder"))
    await h.engine.load("coder@1", Path("/pool/coder@1"))
    await h.keeper.reconcile()
    assert h.keeper.tier("coder") == "vram"


async def test_a_fetched_folder_deleted_by_hand_is_fetched_again(house, monkeypatch) -> None:
    h = house(far("legal", rest="disk"))
    await h.use("legal")
    await h.keeper.unload("legal")
    monkeypatch.setattr("agentflow.residency.wishes.stamp_of", lambda _: ())
    h.keeper.warm("legal")
    await asyncio.sleep(0)
    assert h.disk.calls == ["fetch hf://legal", "fetch hf://legal"]


async def test_two_hundred_turns_for_twenty_adapters_on_four_slots_leak_nothing(house, monkeypatch) -> None:
    monkeypatch.setattr("agentflow.residency.wishes.GIVES_WAY", 0.05)
    h = house(*(fake_adapter(f"r{number}") for number in range(20)), slots=4, ram=10_000)
    h.keeper.clock = time.monotonic

    async def turn(number: int) -> None:
        role = f"r{number % 20}"
        h.keeper.warm(role)
        async with h.keeper.hold(role) as name:
            assert name in h.engine.folders
            await asyncio.sleep(0.001)

    turns = [asyncio.create_task(turn(number)) for number in range(200)]
    await asyncio.sleep(0.01)
    for one in turns[::2]:
        one.cancel()
    done = await asyncio.gather(*turns, return_exceptions=True)
    assert [one for one in done if isinstance(one, Exception)] == []
    assert sum(place.holds + place.waiting for place in h.keeper.places()) == 0
    assert len(h.engine.folders) <= 4


async def test_what_an_earlier_process_left_in_memory_is_taken_over_or_removed(house) -> None:
    h = house(fake_adapter("coder"))
    h.memory.left = {"coder@1": 100, "gone@1": 100, "foreign@1": 100}
    await h.engine.load("foreign@1", Path("/pool/foreign@1"))
    await h.keeper.reconcile()
    assert (h.keeper.tier("coder"), h.memory.calls) == ("ram", ["forget gone@1"])


async def test_a_conversation_that_goes_on_brings_its_adapter_nearer(house) -> None:
    h = house(fake_adapter("coder"))
    h.keeper.resume("coder")
    await h.settled()
    assert tiers(h) == {"coder": "ram"}
