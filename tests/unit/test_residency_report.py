"""What people and metrics are told of adapters, and of the machine around them."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentflow.errors import EngineDown, InvalidAdapter
from agentflow.fakes.adapter import fake_adapter
from agentflow.fakes.engine import FakeEngine
from agentflow.machine import Gpus, Room, disk, ram
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.plan import Budgets
from agentflow.residency.report import table
from agentflow.residency.roster import Adapter, Residence
from agentflow.wiring.watching import Watching

IDLE = Residence(rest="ram", unload_after=60.0)


@pytest.fixture
async def kept():
    roster = {
        "coder": fake_adapter("coder", residence=IDLE),
        "far": Adapter("far", None, "https://user:secret@models.example/x?sig=secret"),
        "broken": InvalidAdapter("rank 128 is over 64"),
    }
    made = AdapterKeeper(FakeEngine(check_files=False), roster, Budgets(2, 1000))
    made.clock = lambda: 100.0
    yield made
    await made.close()


def told(keeper: AdapterKeeper, role: str) -> str:
    return next(one["next"] for one in table(keeper) if one["role"] == role)


async def test_the_next_move_is_told_with_its_reason(kept) -> None:
    assert told(kept, "coder") == "rests in disk"
    kept.warm("coder")
    assert told(kept, "coder").startswith("is on its way into ram, vram: demand")
    async with kept.hold("coder"):
        await kept.settled()
        assert told(kept, "coder") == "stays: 1 turn holds it"
    kept.clock = lambda: 130.0
    assert told(kept, "coder") == "leaves VRAM in 30 s unless it is used"
    await kept.pin("coder", "vram")
    assert told(kept, "coder") == "stays in vram: pinned"


async def test_a_row_names_the_digest_and_no_secret(kept) -> None:
    rows = {one["role"]: one for one in table(kept)}
    assert (rows["coder"]["adapter"], rows["coder"]["bytes"], rows["coder"]["tier"]) == (
        "coder@1",
        100,
        "disk",
    )
    assert (rows["far"]["adapter"], rows["far"]["source"]) == (None, "https://models.example/x")
    assert "secret" not in str(rows)


async def test_a_failed_load_is_told_with_the_time_of_the_next_try(kept) -> None:
    kept.engine.load_failure = EngineDown("connection refused")
    kept.warm("coder")
    await kept.settled()
    row = table(kept)[0]
    assert (row["next"], row["error"]) == ("is tried again in 2 s", "connection refused")


async def test_the_report_holds_engine_tiers_machine_and_what_cannot_be_used(kept, tmp_path) -> None:
    report = await Watching(kept, memory=None, cache=tmp_path, gpus=Gpus(nvml())).report()
    assert report["engine"]["ok"] is True
    assert report["tiers"]["vram"] == {"slots": 2, "used": 0, "pinned": 0}
    assert report["machine"]["vram"] == [{"name": "gpu 0", "total": 100, "used": 95, "share": 0.95}]
    assert report["unusable"] == {"broken": "rank 128 is over 64"}


async def test_memory_that_runs_full_makes_copies_leave(kept) -> None:
    async with kept.hold("coder"):
        pass
    await kept.unload("coder")
    assert kept.tier("coder") == "ram"
    kept.squeeze("ram", 0.95)
    await kept.settled()
    assert kept.tier("coder") == "disk"
    kept.squeeze("ram", 0.5)
    kept.resume("coder")
    await kept.settled()
    assert kept.tier("coder") == "ram"


async def test_a_full_gpu_makes_adapters_leave_that_nobody_holds(kept, tmp_path) -> None:
    async with kept.hold("coder"):
        pass
    await Watching(kept, memory=tmp_path, cache=tmp_path, gpus=Gpus(nvml())).look()
    await kept.settled()
    assert kept.tier("coder") in ("ram", "disk")


async def test_what_was_done_is_counted(kept) -> None:
    kept.warm("coder")
    async with kept.hold("coder"):
        await asyncio.sleep(0)
    kept.warm("coder")
    tally = kept.tally
    assert (tally.hits["coder", "disk"], tally.hits["coder", "vram"]) == (1, 1)
    assert (tally.loads["coder", "vram"], tally.waits["coder"]) == (1, 1)
    assert tally.moves["coder", "vram", "demand"] == 1


def nvml(**broken: object) -> SimpleNamespace:
    """The library's face, with one GPU."""
    return SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=broken.get("nvmlInit", lambda: None),
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(total=100, used=95),
    )


def test_a_machine_without_a_gpu_says_so() -> None:
    def missing() -> None:
        raise RuntimeError("NVML Shared Library Not Found")

    gpus = Gpus(nvml(nvmlInit=missing))
    assert gpus.rooms() == []
    assert "no NVIDIA driver" in str(gpus.absence)
    gpus.close()


def test_memory_and_disks_are_read_from_the_machine(tmp_path: Path) -> None:
    for room in (ram(), disk(tmp_path / "not" / "yet")):
        assert 0 < room.used < room.total
    assert Room("x", 0, 0).share == 0.0
