"""The cache of fetched adapters: whole, verified, bounded, whatever a source does."""

import asyncio
import shutil
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentflow import adapters
from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.errors import AdapterError, FetchFailed, InvalidAdapter, NoRoom
from agentflow.fakes.source import FakeSource
from agentflow.protocols import RemoteFile
from agentflow.shelves.disk import DiskCache, Terms

AT = "hf://legal/lora"
QUICK = Terms(silence=0.2, within=5.0, tries=3, pause=0.0)


@pytest.fixture
async def cache():
    """A function that opens a cache of a folder; all are closed at the end."""
    opened: list[DiskCache] = []

    def open_(folder: Path, source: FakeSource, *, capacity: int = 10**9, terms: Terms = QUICK) -> DiskCache:
        made = DiskCache(
            folder / "cache",
            capacity=capacity,
            sources={"hf": source},
            inspect=partial(adapters.inspect, base=None, max_rank=64),
            check=partial(adapters.check, base=None, max_rank=64),
            terms=terms,
        )
        opened.append(made)
        return made

    yield open_
    for one in opened:
        await one.close()


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache" / "kept").glob("*"))


@pytest.fixture
def source(made) -> FakeSource:
    return FakeSource({AT: made()})


async def test_what_was_fetched_is_found_again_by_the_next_process(cache, tmp_path, source) -> None:
    first = cache(tmp_path, source)
    files = await first.fetch(AT)
    await first.close()
    again = cache(tmp_path, source)
    assert again.find(AT) == files
    assert files.sha256 == adapters.digest(files.folder)
    assert again.find("hf://other") is None


async def test_two_who_want_it_share_one_download(cache, tmp_path, source) -> None:
    disk = cache(tmp_path, source)
    await asyncio.gather(disk.fetch(AT), disk.fetch(AT))
    assert source.reads == [(CONFIG, 0), (WEIGHTS, 0)]


async def test_who_gives_up_leaves_the_download_to_the_others(cache, tmp_path, source) -> None:
    source.gate = asyncio.Event()
    disk = cache(tmp_path, source, terms=Terms())
    first, second = asyncio.create_task(disk.fetch(AT)), asyncio.create_task(disk.fetch(AT))
    await asyncio.sleep(0.01)
    first.cancel()
    source.gate.set()
    assert (await second).folder.is_dir()


async def test_a_broken_download_goes_on_where_it_stopped(cache, tmp_path, source) -> None:
    source.breaks_after = [10**6, 128]
    disk = cache(tmp_path, source)
    await disk.fetch(AT)
    assert source.reads[1:] == [(WEIGHTS, 0), (CONFIG, 0), (WEIGHTS, 128)]


async def test_other_content_meanwhile_begins_anew(cache, tmp_path, source, made) -> None:
    source.breaks_after = [10**6, 128]
    disk = cache(tmp_path, source, terms=Terms(tries=1))
    with pytest.raises(FetchFailed):
        await disk.fetch(AT)
    source.stamp, source.folders = "2", {AT: made(2.0)}
    await disk.fetch(AT)
    assert source.reads[-1] == (WEIGHTS, 0)


async def test_a_source_that_goes_silent_is_given_up(cache, tmp_path, source) -> None:
    source.gate = asyncio.Event()
    disk = cache(tmp_path, source, terms=Terms(silence=0.01, tries=1))
    with pytest.raises(FetchFailed, match=r"sent nothing for 0\.01 s"):
        await disk.fetch(AT)
    assert kept(tmp_path) == []


async def test_a_download_that_trickles_is_given_up_in_time(cache, tmp_path, source) -> None:
    source.delay = 5.0
    disk = cache(tmp_path, source, terms=Terms(within=0.05))
    with pytest.raises(FetchFailed, match=r"within model\.fetching\.within"):
        await disk.fetch(AT)


async def test_more_than_announced_is_refused(cache, tmp_path, source) -> None:
    source.says = {WEIGHTS: 100}
    with pytest.raises(FetchFailed, match="more than the 100 bytes"):
        await cache(tmp_path, source).fetch(AT)


async def test_less_than_announced_is_refused(cache, tmp_path, source) -> None:
    source.says = {WEIGHTS: 10_000}
    with pytest.raises(FetchFailed, match="ended after"):
        await cache(tmp_path, source, terms=Terms(tries=1)).fetch(AT)


async def test_more_than_an_adapter_may_have_is_not_begun(cache, tmp_path, source) -> None:
    source.says = {WEIGHTS: 3 * 2**30}
    disk = cache(tmp_path, source)
    with pytest.raises(NoRoom, match=r"model\.fetching\.limit"):
        await disk.weigh(AT)
    source.says = {WEIGHTS: None}
    with pytest.raises(FetchFailed, match="more than the 200 bytes"):
        await cache(tmp_path, source, terms=Terms(limit=200)).fetch(AT)


@pytest.mark.parametrize("which", ["weights", "digest"])
async def test_the_expected_content_is_kept(cache, tmp_path, source, which) -> None:
    weights = sha256(source.folders[AT][WEIGHTS]).hexdigest()
    disk = cache(tmp_path, source)
    expected = weights if which == "weights" else (await disk.fetch(AT)).sha256
    assert (await disk.fetch(AT, expected)).folder.is_dir()


async def test_other_content_than_expected_never_gets_a_name(cache, tmp_path, source) -> None:
    with pytest.raises(InvalidAdapter, match="is not what sha256 names"):
        await cache(tmp_path, source).fetch(AT, "0" * 64)
    assert kept(tmp_path) == []


async def test_what_is_no_adapter_never_gets_a_name(cache, tmp_path, source) -> None:
    source.folders = {AT: {CONFIG: b"{}", WEIGHTS: b"x" * 64}}
    with pytest.raises(InvalidAdapter):
        await cache(tmp_path, source).fetch(AT)
    assert (kept(tmp_path), list((tmp_path / "cache" / "arriving").glob("*"))) == ([], [])


async def test_a_full_disk_is_told_before_the_download(cache, tmp_path, source, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=100, used=100, free=0))
    with pytest.raises(NoRoom, match="has 0 left"):
        await cache(tmp_path, source).fetch(AT)
    assert source.reads == []


async def test_a_disk_that_fills_up_meanwhile_leaves_nothing_behind(
    cache, tmp_path, source, monkeypatch
) -> None:
    async def full(_address: str, file: RemoteFile, *, start: int):
        raise OSError(28, "No space left on device")
        yield b"" * start

    monkeypatch.setattr(source, "read", full)
    with pytest.raises(NoRoom, match=r"No space left on device.*model\.disk\.path"):
        await cache(tmp_path, source).fetch(AT)
    assert list((tmp_path / "cache" / "arriving").glob("*")) == []


async def test_what_no_role_names_makes_room(cache, tmp_path, made) -> None:
    addresses = ["hf://a/x", "hf://b/x", "hf://c/x"]
    source = FakeSource({address: made(float(number + 1)) for number, address in enumerate(addresses)})
    one = sum(len(content) for content in made().values())
    disk = cache(tmp_path, source, capacity=int(one * 2.5))
    disk.want(addresses[1:])
    for address in addresses:
        await disk.fetch(address)
    assert [disk.find(address) is not None for address in addresses] == [False, True, True]


async def test_a_folder_deleted_by_hand_is_fetched_again(cache, tmp_path, source) -> None:
    disk = cache(tmp_path, source)
    files = await disk.fetch(AT)
    shutil.rmtree(files.folder)
    assert disk.find(AT) is None
    assert await disk.fetch(AT) == files


async def test_a_file_cut_short_by_hand_is_not_taken_for_whole(cache, tmp_path, source) -> None:
    disk = cache(tmp_path, source)
    files = await disk.fetch(AT)
    (files.folder / WEIGHTS).write_bytes(b"short")
    assert disk.find(AT) is None


async def test_a_second_process_fetches_but_removes_nothing(cache, tmp_path, source) -> None:
    first, second = cache(tmp_path, source), cache(tmp_path, source)
    first.want([AT])
    await second.fetch(AT)
    second.drop(AT)
    assert (first.is_owner, second.is_owner, first.find(AT) is not None) == (True, False, True)
    first.drop(AT)
    assert second.find(AT) is None


async def test_two_processes_fetch_the_same_at_once(cache, tmp_path, source) -> None:
    both = [cache(tmp_path, source) for _ in range(2)]
    first, second = await asyncio.gather(*(one.fetch(AT) for one in both))
    assert (first, len(kept(tmp_path))) == (second, 1)
    left = [path.suffix for path in (tmp_path / "cache").rglob("*") if path.suffix == ".part"]
    assert left == []


async def test_an_unknown_scheme_says_which_are_known(cache, tmp_path, source) -> None:
    with pytest.raises(AdapterError, match="known are hf"):
        await cache(tmp_path, source).fetch("ftp://x/y")


async def test_no_more_downloads_at_once_than_allowed(cache, tmp_path, made, soon) -> None:
    addresses = [f"hf://{name}/x" for name in "abc"]
    source = FakeSource({address: made(number + 1.0) for number, address in enumerate(addresses)})
    source.gate = asyncio.Event()
    disk = cache(tmp_path, source, terms=Terms(parallel=2))
    coming = [asyncio.create_task(disk.fetch(address)) for address in addresses]
    await soon(lambda: len(source.reads) == 2)
    await asyncio.sleep(0.05)
    assert source.reads == [(CONFIG, 0)] * 2
    source.gate.set()
    assert len({files.sha256 for files in await asyncio.gather(*coming)}) == 3
