"""Scopes on disk: `<scope>.faiss`, mapped into memory, and `<scope>.npz` with what has changed since.

Files are written beside their names and renamed once they are whole, so a crash leaves the old or the new one. A
base that is newer than its changes file is no harm: changes name ids, and saying them twice says the same.
"""

import os
import re
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import structlog

from agentflow.memory.faiss.index import Base, ScopeIndex

log = structlog.get_logger(__name__)
NAME = "place"
_NAME = re.compile(rb"[0-9a-f]{12}\s*")
UNREADABLE = (RuntimeError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""What FAISS and NumPy raise for a file that is broken; OSError says that the disk is."""
_MAPPED = faiss.IO_FLAG_MMAP_IFC


@dataclass(frozen=True)
class Folder:
    """One collection's files."""

    path: Path

    def name(self) -> str:
        """Made once per folder, so that an emptied folder is another place; one that cannot be read is made anew."""
        file = self.path / NAME
        if not file.is_file() or not _NAME.fullmatch(file.read_bytes()):
            self.path.mkdir(parents=True, exist_ok=True)
            _written(file, lambda to: to.write_text(uuid.uuid4().hex[:12], encoding="ascii"))
        return file.read_text(encoding="ascii").strip()

    def read(self, scope: int, dim: int, exact_below: int) -> ScopeIndex:
        """The scope as it was last saved; empty if it never was.

        Files that cannot be read go, with the folder's name: to the record it is another place then, filled anew.
        """
        try:
            return self._read(scope, dim, exact_below)
        except UNREADABLE as error:
            log.warning(
                "vectors on disk cannot be read; they are filled in again", scope=scope, reason=str(error)
            )
            (self.path / NAME).unlink(missing_ok=True)
            self.drop(scope)
            return ScopeIndex(dim, exact_below)

    def _read(self, scope: int, dim: int, exact_below: int) -> ScopeIndex:
        base_file, changes_file = self._files(scope)
        base = faiss.read_index(str(base_file), _MAPPED) if base_file.is_file() else None
        index = ScopeIndex(dim, exact_below, base)
        if changes_file.is_file():
            with np.load(changes_file, allow_pickle=False) as changes:
                index.delete(changes["gone"].tolist())
                index.put(changes["ids"].tolist(), changes["vectors"])
        return index

    def save_changes(self, scope: int, index: ScopeIndex) -> None:
        ids = np.fromiter(index.tail, np.int64)
        vectors = np.array(list(index.tail.values()), np.float32).reshape(-1, index.dim)
        gone = np.fromiter(index.gone, np.int64)

        def write(to: Path) -> None:
            with to.open("wb") as file:
                np.savez(file, ids=ids, vectors=vectors, gone=gone)

        _written(self._files(scope)[1], write)

    def copy(self, scope: int) -> Base:
        """The base once more, in RAM, to be added to."""
        return faiss.read_index(str(self._files(scope)[0]))

    def save_base(self, scope: int, base: Base) -> Base:
        """Write a base; returns it mapped from its file."""
        file = self._files(scope)[0]
        _written(file, lambda to: faiss.write_index(base, str(to)))
        return faiss.read_index(str(file), _MAPPED)

    def drop(self, scope: int) -> None:
        for file in self._files(scope):
            file.unlink(missing_ok=True)

    def _files(self, scope: int) -> tuple[Path, Path]:
        return self.path / f"{scope}.faiss", self.path / f"{scope}.npz"


def _written(file: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, and rename once it is on the disk."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(beside)
        with beside.open("rb") as done:
            os.fsync(done.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
