"""Copies in memory, and the links that engines open."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from agentflow.adapters import WEIGHTS
from agentflow.errors import ConfigError, NoRoom
from agentflow.shelves import ram
from agentflow.shelves.ram import RamPool, capacity

SHM = Path("/memory/agentflow")
NAME = "coder@0123456789ab"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def pool(tmp_path, monkeypatch) -> Iterator[RamPool]:
    """A pool with room enough, however full this machine is."""
    monkeypatch.setattr(ram.shutil, "disk_usage", lambda _path: Usage(1 << 30, 0, 1 << 30))
    made = RamPool(tmp_path / "ram")
    yield made
    made.close(clear=True)


def test_an_engine_opens_the_copy_through_its_link(pool, folder) -> None:
    files = folder()
    link = pool.put(NAME, files)
    assert (link.is_symlink(), link.resolve().parent.name) == (True, "copies")
    assert (link / WEIGHTS).read_bytes() == (files / WEIGHTS).read_bytes()
    assert pool.copies() == {NAME: sum(path.stat().st_size for path in files.iterdir())}


def test_a_copy_goes_and_the_link_leads_to_the_disk(pool, folder) -> None:
    files = folder()
    link = pool.put(NAME, files)
    pool.drop(NAME, files)
    assert (link.resolve(), pool.copies()) == (files.resolve(), {})


def test_the_link_is_never_missing_while_it_turns(pool, folder) -> None:
    files = folder()
    link = pool.link(NAME, files)
    number = link.lstat().st_ino
    pool.put(NAME, files)
    assert (link.lstat().st_ino != number, (link / WEIGHTS).is_file()) == (True, True)


def test_a_copy_of_the_last_start_is_taken_over(pool, folder) -> None:
    pool.put(NAME, folder())
    pool.close(clear=False)
    again = RamPool(pool.folder)
    assert list(again.copies()) == [NAME]
    again.close(clear=True)


def test_another_process_does_not_get_the_folder(pool) -> None:
    with pytest.raises(NoRoom, match="belongs to another agentflow"):
        RamPool(pool.folder)


def test_half_a_copy_of_the_last_start_is_removed(tmp_path) -> None:
    half = tmp_path / "ram" / "copies" / f"{NAME}.part"
    half.mkdir(parents=True)
    opened = RamPool(tmp_path / "ram")
    assert (opened.copies(), half.exists()) == ({}, False)
    opened.close(clear=True)


def test_a_full_memory_file_system_is_told_and_left_as_it_was(pool, folder, monkeypatch) -> None:
    monkeypatch.setattr(ram.shutil, "disk_usage", lambda _: Usage(1000, 950, 50))
    with pytest.raises(NoRoom, match=r"has 50 left\. It is loaded from disk meanwhile"):
        pool.put(NAME, folder())
    assert pool.copies() == {}


def test_memory_that_runs_out_halfway_leaves_no_half_copy(pool, folder, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ram.os, "posix_fallocate", full)
    with pytest.raises(NoRoom):
        pool.put(NAME, folder())
    assert list((pool.folder / "copies").iterdir()) == []


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "x" * 200])
def test_a_name_is_never_a_path(pool, folder, name) -> None:
    with pytest.raises(ConfigError, match="no name of an adapter"):
        pool.put(name, folder())


def test_strays_of_an_earlier_process_are_found_and_forgotten(pool, folder) -> None:
    pool.put(NAME, folder())
    assert pool.strays({NAME}) == []
    assert pool.strays(set()) == [NAME]
    pool.forget([NAME])
    assert (pool.strays(set()), pool.copies()) == ([], {})


def test_without_a_wish_half_of_the_memory_file_system_is_used(monkeypatch) -> None:
    monkeypatch.setattr(ram, "_file_system", lambda _: ("tmpfs", 64_000_000))
    assert capacity(SHM, None) == 32_000_000
    assert capacity(SHM, 0) == 0


def test_a_disk_is_no_memory(monkeypatch) -> None:
    monkeypatch.setattr(ram, "_file_system", lambda _: ("ext4", 10**12))
    assert capacity(Path("/var/x"), None) == 0
    with pytest.raises(ConfigError, match="no memory file system"):
        capacity(Path("/var/x"), 10**9)


def test_nearly_all_of_the_memory_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(ram, "_file_system", lambda _: ("tmpfs", 10**9))
    with pytest.raises(ConfigError, match="takes the machine down"):
        capacity(SHM, 900_000_000)


def test_the_kind_of_a_place_is_read_from_the_machine(tmp_path) -> None:
    kind, size = ram._file_system(tmp_path / "not" / "yet")
    assert kind
    assert size > 0
