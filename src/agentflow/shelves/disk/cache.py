"""The cache of fetched adapters on disk.

    arriving/ADDRESS/   a download under way, resumed where it stopped
    kept/DIGEST/        complete, validated and never changed again
    index/ADDRESS.json  which digest an address gave

A folder appears under `kept` by one rename, after its files were checked and are on disk for good.
"""

import asyncio
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import structlog

from agentflow.adapters import CONFIG, WEIGHTS, AdapterFiles
from agentflow.adapters.config import CONFIG_LIMIT
from agentflow.egress import shown
from agentflow.ending import end
from agentflow.errors import AdapterError, FetchFailed, InvalidAdapter, NoRoom
from agentflow.protocols import RemoteFile, Source
from agentflow.shelves.disk.arrival import heard, resumable, silent, written
from agentflow.shelves.disk.content import mismatch, verify, weights_digest
from agentflow.shelves.disk.folders import disk_failed, key, octets_in, owned, remove, sync
from agentflow.shelves.disk.index import Index

log = structlog.get_logger(__name__)
NAMES = (CONFIG, WEIGHTS)
ABANDONED = 86400.0
"""Seconds after which a download that nobody went on with is removed."""

Judge = Callable[[Path], AdapterFiles]


@dataclass(frozen=True)
class Terms:
    """How downloads behave: so many at once, bytes at most, seconds in all and of silence, tries with a pause."""

    parallel: int = 2
    limit: int = 2 * 2**30
    within: float = 600.0
    silence: float = 30.0
    tries: int = 3
    pause: float = 1.0


class DiskCache:
    """Fetched adapters in `folder`, at most `capacity` bytes.

    `inspect` reads and hashes a folder, `check` judges one without hashing; both raise InvalidAdapter.
    A second process on the same folder fetches, but never removes: the first one's engine may need it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        capacity: int,
        sources: Mapping[str, Source],
        inspect: Judge,
        check: Judge,
        terms: Terms | None = None,
    ) -> None:
        self.folder = folder
        self.capacity = capacity
        self._index = Index(folder / "index")
        self._sources = sources
        self._inspect = inspect
        self._check = check
        self._terms = terms or Terms()
        self._turns = asyncio.Semaphore(self._terms.parallel)
        self._coming: dict[str, asyncio.Task[AdapterFiles]] = {}
        self._wanted: frozenset[str] = frozenset()
        self._lock: BinaryIO | None = None
        self._claimed = False
        self._claiming = threading.Lock()

    @property
    def is_owner(self) -> bool:
        """Whether this process may remove what is here. Asked the first time, it takes the folder if it is free."""
        with self._claiming:  # downloads ask from threads
            if not self._claimed:
                self._claimed, self._lock = True, owned(self.folder)
        return self._lock is not None

    def want(self, addresses: Collection[str]) -> None:
        """The addresses that roles name now; what others gave makes room first. Removes abandoned downloads."""
        self._wanted = frozenset(addresses)
        if not self._wanted or not self.is_owner:
            return
        for arriving in self._under("arriving"):
            if time.time() - arriving.stat().st_mtime > ABANDONED:
                shutil.rmtree(arriving, ignore_errors=True)

    def find(self, address: str) -> AdapterFiles | None:
        """What the address gave, if it is still here whole; reads headers only. Never raises."""
        known = self._index.of(address)
        if known is None:
            return None
        folder = self.folder / "kept" / known["digest"][:32]
        try:
            sizes = {name: (folder / name).stat().st_size for name in NAMES}
            if sizes != known["sizes"]:
                return None
            return replace(self._check(folder), sha256=known["digest"])
        except (OSError, AdapterError):
            return None

    async def weigh(self, address: str) -> int:
        """Bytes that the address would take; 0 where its source does not say. Raises FetchFailed, NoRoom."""
        async with asyncio.timeout(self._terms.silence):
            files = await self._source(address).look(address, NAMES)
        octets = sum(file.size or 0 for file in files)
        largest = min(self._terms.limit, self.capacity)
        if octets > largest:
            raise NoRoom(
                f"{shown(address)} has {octets} bytes; model.fetching.limit and model.disk.max allow {largest}.",
                field="lora_path",
                value=shown(address),
            )
        return octets

    async def fetch(self, address: str, expected: str | None = None) -> AdapterFiles:
        """Download, verify, validate and keep, unless it is here; all who want the address share one download.

        `expected` is the SHA-256 of the weights file or the adapter's digest; without it the first content is
        trusted, with a warning. Raises FetchFailed, InvalidAdapter or NoRoom.
        """
        here = await asyncio.to_thread(self.find, address)
        coming = self._coming.get(address)
        if here is not None and coming is None:
            verify(here, expected, address)
            return here
        if coming is None:
            coming = asyncio.create_task(self._bounded(address, expected))
            self._coming[address] = coming
            coming.add_done_callback(lambda _: self._coming.pop(address, None))
        files = await asyncio.shield(coming)
        verify(files, expected, address)
        return files

    def drop(self, address: str) -> None:
        """Remove what the address gave; its digest stays known."""
        known = self._index.of(address)
        if known is not None and self.is_owner:
            remove(self.folder / "kept" / known["digest"][:32])

    def used(self) -> int:
        """Bytes of all that is kept or arriving."""
        folders = (*self._under("kept"), *self._under("arriving"))
        return sum(octets_in(folder) for folder in folders)

    async def close(self) -> None:
        """Stop downloads; the next start goes on with them."""
        await end(self._coming.values())
        if self._lock is not None:
            self._lock.close()
        self._claimed, self._lock = False, None

    # --- one download

    async def _bounded(self, address: str, expected: str | None) -> AdapterFiles:
        async with self._turns:
            try:
                async with asyncio.timeout(self._terms.within):
                    return await self._persistent(address, expected)
            except TimeoutError:
                raise FetchFailed(
                    f"{shown(address)} was not here within model.fetching.within = {self._terms.within:g} s.",
                    field="lora_path",
                    value=shown(address),
                    retry_after=60,
                ) from None

    async def _persistent(self, address: str, expected: str | None) -> AdapterFiles:
        """Try again what may pass, each time from where the last try stopped."""
        for left in reversed(range(self._terms.tries)):
            try:
                return await self._arrived(address, expected)
            except FetchFailed as error:
                if error.retry_after is None or not left:
                    raise
                log.warning("download goes on after a pause", address=shown(address), reason=error.message)
                await asyncio.sleep(self._terms.pause * (self._terms.tries - left))
        raise AssertionError("tries is at least 1")

    async def _arrived(self, address: str, expected: str | None) -> AdapterFiles:
        source = self._source(address)
        try:
            async with asyncio.timeout(self._terms.silence):
                files = await source.look(address, NAMES)
        except TimeoutError:
            raise silent(address, self._terms.silence) from None
        room = await asyncio.to_thread(self._room, address, sum(file.size or 0 for file in files))
        try:
            for file in files:
                await self._download(source, address, file, room)
            return await asyncio.to_thread(self._accepted, address, room, expected)
        except InvalidAdapter:
            remove(room)
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remove(room)
            raise disk_failed(address, self.folder, error) from error

    async def _download(self, source: Source, address: str, file: RemoteFile, folder: Path) -> None:
        limit = CONFIG_LIMIT if file.name == CONFIG else self._terms.limit
        promised = limit if file.size is None else min(limit, file.size)
        part = folder / f"{file.name}.{key(file.stamp or 'unknown')[:8]}.part"
        target = folder / file.name
        start = resumable(part, file)
        with part.open("r+b" if start else "wb") as out:
            out.seek(start)
            blocks = heard(source.read(address, file, start=start), self._terms.silence, address)
            async with aclosing(blocks):
                async for block in blocks:
                    start = written(out, start, block, promised, address)
            out.flush()
            await asyncio.to_thread(os.fsync, out.fileno())
        if file.size is not None and start != file.size:
            raise FetchFailed(
                f"{shown(address)}/{file.name} ended after {start} of {file.size} bytes.",
                field="lora_path",
                value=shown(address),
                retry_after=5,
            )
        part.replace(target)

    def _room(self, address: str, octets: int) -> Path:
        """The folder of the download, with room on the disk. Raises NoRoom."""
        room = self.folder / "arriving" / (key(address) if self.is_owner else f"{key(address)}-{os.getpid()}")
        room.mkdir(parents=True, exist_ok=True)
        self._make_room(octets)
        free = shutil.disk_usage(self.folder).free + octets_in(room)
        if octets > free:
            raise NoRoom(
                f"{shown(address)} needs {octets} bytes, but the disk of {self.folder} has {free} left. "
                "Free some, or name another disk in model.disk.path.",
                field="model.disk.path",
                value=str(self.folder),
                retry_after=60,
            )
        return room

    def _make_room(self, octets: int) -> None:
        """Remove what no role names any more, oldest first, as far as the capacity needs it."""
        named = {known["digest"][:32] for address in self._wanted if (known := self._index.of(address))}
        idle = [folder for folder in self._under("kept") if folder.name not in named]
        for folder in sorted(idle, key=lambda one: one.stat().st_mtime):
            if not self.is_owner or self.used() + octets <= self.capacity:
                return
            remove(folder)

    def _accepted(self, address: str, room: Path, expected: str | None) -> AdapterFiles:
        """Judge the files, then give them their final name. Runs in a thread: it hashes."""
        files = self._inspect(room)
        weights = weights_digest(room)
        if expected is None:
            log.warning("adapter trusted at first sight", address=shown(address), sha256=weights)
        elif expected not in (weights, files.sha256):
            raise mismatch(address, expected, weights)
        sizes = {name: (room / name).stat().st_size for name in NAMES}
        final = self.folder / "kept" / files.sha256[:32]
        for stray in set(room.iterdir()) - {room / name for name in NAMES}:
            stray.unlink()
        final.parent.mkdir(parents=True, exist_ok=True)
        sync(room)
        try:
            room.replace(final)
        except OSError:
            if not final.exists():
                raise
            remove(room)  # it was here before, or another process was faster
        sync(final.parent)
        self._index.remember(address, {"digest": files.sha256, "weights": weights, "sizes": sizes})
        return replace(files, folder=final)

    def _under(self, name: str) -> list[Path]:
        try:
            return [entry for entry in (self.folder / name).iterdir() if entry.is_dir()]
        except FileNotFoundError:
            return []

    def _source(self, address: str) -> Source:
        scheme = address.partition("://")[0]
        if scheme not in self._sources:
            raise FetchFailed(
                f"{shown(address)}: {scheme}:// is no known source; known are {', '.join(self._sources)}.",
                field="lora_path",
                value=shown(address),
            )
        return self._sources[scheme]
