"""Folders that others see whole or not at all, and the lock of who may remove them."""

import fcntl
import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from agentflow.egress import shown
from agentflow.errors import AdapterError, NoRoom


def key(text: str) -> str:
    """An address as a file's name."""
    return sha256(text.encode()).hexdigest()[:24]


def octets_in(folder: Path) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def remove(folder: Path) -> None:
    """Out of sight in one step, then away: nobody sees half a folder."""
    leaving = folder.with_name(f"{folder.name}.leaving")
    try:
        folder.replace(leaving)
    except OSError:
        return
    shutil.rmtree(leaving, ignore_errors=True)


def sync(folder: Path) -> None:
    """On disk for good, whatever happens to the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def owned(folder: Path) -> BinaryIO | None:
    """The folder's lock, held as long as it is open; None while another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def disk_failed(address: str, folder: Path, error: OSError) -> AdapterError:
    """A disk that is full, or fails."""
    way = "Free some room, or name another disk in model.disk.path."
    return NoRoom(
        f"{shown(address)} cannot be kept in {folder}: {error.strerror}. {way}",
        field="model.disk.path",
        value=str(folder),
        retry_after=60,
    )
