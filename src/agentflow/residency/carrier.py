"""One adapter, one step, one direction: what it takes to move between two tiers. No decision is made here."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from agentflow.adapters import AdapterFiles
from agentflow.errors import AdapterError, InvalidAdapter
from agentflow.protocols import Engine
from agentflow.residency.places import Place
from agentflow.residency.plan import Tier
from agentflow.residency.roster import stamp_of

log = structlog.get_logger(__name__)


class Cache(Protocol):
    """Fetched adapters on disk (shelves/disk)."""

    def find(self, address: str) -> AdapterFiles | None: ...
    def want(self, addresses: Collection[str]) -> None: ...
    def drop(self, address: str) -> None: ...
    async def weigh(self, address: str) -> int: ...
    async def fetch(self, address: str, expected: str | None = None) -> AdapterFiles: ...


class Copies(Protocol):
    """Copies in memory and the links that engines open (shelves/ram.py). Methods block."""

    def copies(self) -> dict[str, int]: ...
    def put(self, name: str, files: Path) -> Path: ...
    def drop(self, name: str, back_to: Path) -> None: ...
    def link(self, name: str, files: Path) -> Path: ...
    def forget(self, names: Collection[str]) -> None: ...
    def strays(self, known: Collection[str]) -> list[str]: ...


@dataclass(frozen=True)
class Shelves:
    """Where files rest; a tier that is None is left out."""

    cache: Cache | None = None
    copies: Copies | None = None


class Carrier:
    """Moves adapters. The engine is asked one thing at a time: loads stall what it is doing.

    Without `copies` engines open the files where they lie, and an engine with a memory tier of its own is asked
    to keep what rests in RAM.
    """

    def __init__(self, engine: Engine, shelves: Shelves) -> None:
        self.engine = engine
        self.cache = shelves.cache
        self.copies = shelves.copies
        self.turn = asyncio.Lock()

    async def bring(self, place: Place, tier: Tier) -> None:
        """Into the tier, from the one below. Raises AdapterError, EngineError."""
        match tier:
            case "disk":
                await self._fetch(place)
            case "ram":
                await self._into_ram(place)
            case _:
                await self._into_engine(place)

    async def drop(self, place: Place, tier: Tier) -> None:
        """Out of the tier; what the engine still opens stays readable. Raises AdapterError, EngineError."""
        name, files = place.name, place.adapter.files
        if name is None or files is None:
            return
        match tier:
            case "vram":
                async with self.turn:
                    if "ram" in place.tiers and self.rests_in_engine:
                        await self.engine.load(name, files.folder, tier="ram")
                    else:
                        await self.engine.unload(name)
            case "ram":
                await self._out_of_ram(place, name, files.folder)
            case _:
                if self.cache is not None and place.adapter.address is not None:
                    await asyncio.to_thread(self.cache.drop, place.adapter.address)

    async def weigh(self, place: Place) -> int:
        """Bytes that a download will take. Raises FetchFailed, NoRoom."""
        if self.cache is None or place.adapter.address is None:
            return place.octets
        return await self.cache.weigh(place.adapter.address)

    async def stock(self, known: Collection[str]) -> Collection[str]:
        """Copies in memory that an earlier process left; those of nobody known are removed with their links."""
        if self.copies is None:
            return ()
        strays = await asyncio.to_thread(self.copies.strays, known)
        await asyncio.to_thread(self.copies.forget, strays)
        return await asyncio.to_thread(self.copies.copies)

    def forget(self, name: str) -> None:
        """No engine knows the adapter any more: its link may go."""
        if self.copies is not None:
            self.copies.forget([name])

    @property
    def rests_in_engine(self) -> bool:
        """Whether the engine itself keeps in RAM what rests there."""
        return self.copies is None and self.engine.capabilities.host_tier

    async def _fetch(self, place: Place) -> None:
        adapter = place.adapter
        if adapter.address is None:
            return
        if self.cache is None:
            raise AdapterError(f"{adapter.role}: {adapter.address} needs model.disk, which is not there.")
        place.adapter = adapter.fetched(await self.cache.fetch(adapter.address, adapter.expected))

    async def _into_ram(self, place: Place) -> None:
        name, files = _ready(place)
        if self.copies is not None:
            await asyncio.to_thread(self.copies.put, name, files.folder)
        elif self.rests_in_engine:
            async with self.turn:
                await self.engine.load(name, files.folder, tier="ram")

    async def _out_of_ram(self, place: Place, name: str, folder: Path) -> None:
        if self.copies is not None:
            await asyncio.to_thread(self.copies.drop, name, folder)
        elif self.rests_in_engine and not place.speaks:
            async with self.turn:
                await self.engine.unload(name)

    async def _into_engine(self, place: Place) -> None:
        name, files = _ready(place)
        folder = files.folder
        if self.copies is not None:
            folder = await asyncio.to_thread(self._opened, place, name, folder)
        async with self.turn:
            await self.engine.load(name, folder)
            if place.pin == "vram" and self.engine.capabilities.pin:
                await self.pin(name)

    def _opened(self, place: Place, name: str, folder: Path) -> Path:
        """The link under which the engine knows the adapter all its life."""
        assert self.copies is not None  # noqa: S101 - for the type checker; asked before
        return self.copies.put(name, folder) if "ram" in place.tiers else self.copies.link(name, folder)

    async def pin(self, name: str) -> None:
        """Keep a slot for it, where the engine can: an engine's own order then passes it over."""
        try:
            await self.engine.pin(name)
        except AdapterError as error:
            log.warning("adapter not pinned by the engine", adapter=name, reason=error.message)


def _ready(place: Place) -> tuple[str, AdapterFiles]:
    """Name and files, still those that were validated. Raises InvalidAdapter."""
    name, files, stamp = place.name, place.adapter.files, place.adapter.stamp
    if name is None or files is None:
        raise AdapterError(f"{place.role}: its adapter has not been fetched yet.", field="adapter")
    if stamp and stamp_of(files.folder) != stamp:
        raise InvalidAdapter(
            f"{place.role}: the files in {files.folder} have changed or gone since they were checked. Put new weights "
            "into a folder of their own, or let them be read again: POST /config/reload.",
            field=f"roles.{place.role}.lora_path",
            value=str(files.folder),
        )
    return name, files
