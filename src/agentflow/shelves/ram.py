"""Adapters in memory: copies on a memory file system, and the links under which engines open them.

An engine is given the link, never the copy. So a copy can go while the engine still knows the adapter: the link
is turned to the files on disk first, in one step, and the engine reads on from there (vllm dies when the files of
an adapter that it knows vanish).

    copies/NAME/   a copy, complete since it appeared under its name
    pool/NAME      a link to the copy, or to the files on disk
"""

import fcntl
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.errors import ConfigError, NoRoom

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,120}")
SHARE = 0.8
"""Of a memory file system, at most: what fills it to the brim takes the machine down."""
IN_MEMORY = {"tmpfs", "ramfs"}


class RamPool:
    """Copies in `folder`. Every method blocks and belongs into a thread; the keeper calls one at a time per name.

    Raises NoRoom when another process has the folder: two would remove each other's copies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = _locked(folder)
        self._copies = folder / "copies"
        self._pool = folder / "pool"
        for part in (self._copies, self._pool):
            part.mkdir(parents=True, exist_ok=True, mode=0o755)
        for part in self._copies.glob("*.part"):
            shutil.rmtree(part, ignore_errors=True)

    def copies(self) -> dict[str, int]:
        """Names and bytes of the copies that are here."""
        return {
            entry.name: sum(file.stat().st_size for file in entry.iterdir())
            for entry in self._copies.iterdir()
            if entry.is_dir() and not entry.name.endswith(".part")
        }

    def put(self, name: str, files: Path) -> Path:
        """Copy the adapter's files and turn its link to the copy; the link. Raises NoRoom."""
        copy, part = self._copies / _checked(name), self._copies / f"{name}.part"
        octets = sum((files / one).stat().st_size for one in (CONFIG, WEIGHTS))
        usage = shutil.disk_usage(self._copies)
        if not copy.exists() and octets > usage.free - (1 - SHARE) / 2 * usage.total:
            raise _full(name, octets, self.folder, usage.free)
        try:
            if not copy.exists():
                part.mkdir(exist_ok=True)
                for one in (CONFIG, WEIGHTS):
                    _copied(files / one, part / one)
                part.replace(copy)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise _full(name, octets, self.folder, usage.free) from error
        return self.link(name, copy)

    def drop(self, name: str, back_to: Path) -> None:
        """Turn the link to the files on disk, then remove the copy."""
        self.link(name, back_to)
        shutil.rmtree(self._copies / _checked(name), ignore_errors=True)

    def link(self, name: str, files: Path) -> Path:
        """The adapter's link, turned to those files by one rename."""
        link, new = self._pool / _checked(name), self._pool / f".{name}"
        new.unlink(missing_ok=True)
        new.symlink_to(files.absolute(), target_is_directory=True)
        new.replace(link)
        return link

    def forget(self, names: Collection[str]) -> None:
        """Remove links and copies of adapters that no engine knows any more."""
        for name in names:
            (self._pool / _checked(name)).unlink(missing_ok=True)
            shutil.rmtree(self._copies / name, ignore_errors=True)

    def close(self, *, clear: bool) -> None:
        """Let go of the folder; `clear` removes it: the engine has ended with us and opens nothing any more."""
        if clear:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def strays(self, known: Collection[str]) -> list[str]:
        """Names of links and copies that an earlier process left and that are not among the known."""
        here = {entry.name for part in (self._pool, self._copies) for entry in part.iterdir()}
        return sorted(name for name in here - set(known) if NAME.fullmatch(name))


def capacity(folder: Path, wanted: int | None, *, most: int = 4 * 10**9) -> int:
    """Bytes that copies may take. Raises ConfigError for a wanted size that the place cannot bear.

    Without a wanted size half of the memory file system, at most `most`; 0 where there is none.
    """
    if wanted == 0:
        return 0
    kind, size = _file_system(folder)
    if wanted is None:
        return min(most, size // 2) if kind in IN_MEMORY else 0
    if kind not in IN_MEMORY:
        raise ConfigError(
            f"model.ram.path = {folder} lies on {kind}, which is no memory file system. Mount a tmpfs there, name a "
            "folder on one (Linux has /dev/shm), or set model.ram.max: 0.",
            field="model.ram.path",
            value=str(folder),
        )
    if wanted > size * SHARE:
        raise ConfigError(
            f"model.ram.max = {wanted} is more than {SHARE:.0%} of the memory file system of {folder} ({size} bytes): "
            "a full one takes the machine down. Lower it, or enlarge the file system.",
            field="model.ram.max",
            value=wanted,
        )
    return wanted


def _file_system(folder: Path) -> tuple[str, int]:
    """Kind and size of the file system on which a folder (that may not exist yet) will lie."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    there = there.resolve()
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "an unknown file system", 0
    mounts = [(Path(line.split()[1]), line.split()[2]) for line in lines]
    around = [(len(place.parts), kind) for place, kind in mounts if there.is_relative_to(place)]
    return max(around, key=lambda one: one[0])[1] if around else "unknown", shutil.disk_usage(there).total


def _locked(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    lock = (folder / ".lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise NoRoom(
            f"{folder} belongs to another agentflow that runs. Give this one a folder of its own: model.ram.path.",
            field="model.ram.path",
            value=str(folder),
        ) from error
    return lock


def _copied(source: Path, target: Path) -> None:
    """Reserve all bytes first: a memory file system that fills up halfway takes others down with it."""
    with source.open("rb") as given, target.open("wb") as taken:
        size = os.fstat(given.fileno()).st_size
        if size:
            os.posix_fallocate(taken.fileno(), 0, size)
        shutil.copyfileobj(given, taken, 1 << 20)


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name of an adapter.", field="adapter", value=name)
    return name


def _full(name: str, octets: int, folder: Path, free: int) -> NoRoom:
    return NoRoom(
        f"{name} needs {octets} bytes of memory, but {folder} has {free} left. It is loaded from disk meanwhile; "
        "lower model.ram.max, or enlarge the memory file system.",
        field="model.ram.path",
        value=str(folder),
    )
