"""The tiers that the settings ask for: disk cache, copies in memory, budgets, and the keeper over them."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import structlog

from agentflow.adapters import check, inspect
from agentflow.errors import NoRoom
from agentflow.protocols import Engine, Source
from agentflow.residency.carrier import Shelves
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.plan import Budgets
from agentflow.residency.roster import Roster
from agentflow.settings.schema import Model
from agentflow.shelves.disk import DiskCache, Terms
from agentflow.shelves.filesystems import FileSystemSource
from agentflow.shelves.ram import RamPool, capacity
from agentflow.shelves.web import WebSource
from agentflow.wiring.place import Place, base_shape
from agentflow.wiring.watching import Watching

log = structlog.get_logger(__name__)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps memory file systems; the folder inside is ours alone
NEAR = ("127.0.0.1", "localhost", "::1")
INSIDE = ("local", "double")
"""Engines that end with this process."""
MOST = 4 * 10**9
"""Bytes of memory that adapters take where the file does not say."""


def cache(place: Place, stack: AsyncExitStack) -> DiskCache:
    """The disk cache; its folder is made when the first adapter is fetched."""
    model = place.settings.model
    terms = Terms(
        parallel=model.fetching.parallel,
        limit=model.fetching.limit,
        within=model.fetching.within,
        silence=model.fetching.silence,
    )
    web = WebSource(place.settings.egress.allow, limit=terms.limit, within=terms.within)
    stack.push_async_callback(web.close)
    sources: Mapping[str, Source] = {
        "hf": FileSystemSource("hf"),
        "s3": FileSystemSource("s3"),
        "https": web,
        "http": web,
    }
    shape = base_shape(place)
    made = DiskCache(
        model.disk.path,
        capacity=model.disk.max,
        sources=sources,
        inspect=partial(inspect, base=shape, max_rank=model.max_rank),
        check=partial(check, base=shape, max_rank=model.max_rank),
        terms=terms,
    )
    stack.push_async_callback(made.close)
    return made


async def watched(
    place: Place, stack: AsyncExitStack, engine: Engine, roster: Roster, disk: DiskCache
) -> Watching:
    """The keeper with what the settings give it, and the machine around it watched.

    Raises ConfigError for a memory that the place cannot bear.
    """
    model = place.settings.model
    copies, ram = await asyncio.to_thread(_memory, place, engine)
    if copies is not None:
        stack.callback(copies.close, clear=model.engine in INSIDE)
    keeper = AdapterKeeper(
        engine,
        roster,
        Budgets(model.slots, ram, model.disk.max),
        vram_octets=model.vram,
        shelves=Shelves(disk, copies),
    )
    stack.push_async_callback(keeper.close)
    watching = Watching(keeper, memory=None if copies is None else copies.folder, cache=model.disk.path)
    stack.callback(watching.close)
    return watching


def _memory(place: Place, engine: Engine) -> tuple[RamPool | None, int]:
    """Copies and the bytes they may take: the engine's own memory tier where it has one, else a folder in memory.

    An engine on another machine reads neither, nor one that opens no folders.
    """
    model = place.settings.model
    if engine.capabilities.host_tier:
        wanted = model.ram.max
        return None, min(MOST, psutil.virtual_memory().total // 4) if wanted is None else wanted
    if not engine.capabilities.opens_folders or (model.ram.path is None and not is_near(model)):
        return None, 0
    folder = _folder(place)
    octets = capacity(folder, model.ram.max)
    if octets == 0:
        return None, 0
    try:
        _tidy(folder.parent, place)
        pool = RamPool(folder)
        (folder / "origin").write_text(str(place.folder.resolve()), encoding="utf-8")
    except (NoRoom, OSError) as error:
        log.warning("no copies of adapters in memory", reason=str(error))
        return None, 0
    return pool, octets


def is_near(model: Model) -> bool:
    """Whether the engine sees this machine's memory."""
    return model.engine in INSIDE or urlsplit(model.url).hostname in NEAR


def _folder(place: Place) -> Path:
    """A folder of this configuration's own, found again after a crash."""
    path = place.settings.model.ram.path
    if path is not None:
        return place.folder / path.expanduser()
    key = hashlib.sha256(str(place.folder.resolve()).encode()).hexdigest()[:16]
    return SHARED_MEMORY / f"agentflow-{os.getuid()}" / key


def _tidy(shared: Path, place: Place) -> None:
    """Remove what configurations that no longer exist left in memory."""
    if place.settings.model.ram.path is not None or not shared.is_dir():
        return
    for folder in shared.iterdir():
        try:
            origin = Path((folder / "origin").read_text(encoding="utf-8"))
        except OSError:
            continue
        if not origin.exists():
            shutil.rmtree(folder, ignore_errors=True)
