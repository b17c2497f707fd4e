"""hf:// and s3:// addresses, through fsspec: the hub's own file system, and s3fs (extra `s3`)."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import fsspec

from agentflow.errors import FetchFailed, StartError
from agentflow.protocols import RemoteFile

EXTRAS = {"s3": "s3"}
CHUNK = 8 * 2**20


def opened(scheme: str) -> Any:
    """The file system of an address' scheme. Raises StartError that names the extra it needs."""
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        extra = EXTRAS.get(scheme, scheme)
        raise StartError(
            f"{scheme}:// adapters need the extra `{extra}`: pip install 'agentflow[{extra}]'.",
            field="lora_path",
            value=f"{scheme}://",
        ) from error


class FileSystemSource:
    """Reads from any fsspec file system, in threads. Keys and endpoints are the library's own business.

    `open_file_system` is called once, at the first use. A revision stands as `hf://org/name@revision/folder`.
    """

    def __init__(self, scheme: str, open_file_system: Callable[[str], Any] = opened) -> None:
        self._scheme = scheme
        self._open = open_file_system
        self._file_system: Any = None

    async def look(self, address: str, names: Sequence[str]) -> Sequence[RemoteFile]:
        """See Source.look."""
        return [await asyncio.to_thread(self._look, address, name) for name in names]

    async def read(self, address: str, file: RemoteFile, *, start: int) -> AsyncGenerator[bytes, None]:
        """See Source.read."""
        position = start
        while file.size is None or position < file.size:
            end = position + CHUNK if file.size is None else min(position + CHUNK, file.size)
            block = await asyncio.to_thread(self._block, address, file.name, position, end)
            if not block:
                return
            yield block
            position += len(block)

    def _look(self, address: str, name: str) -> RemoteFile:
        path = _path(address, name)
        try:
            found = self._ready().info(path)
        except Exception as error:
            raise _failed(address, name, error) from error
        stamp = found.get("blob_id") or found.get("ETag") or found.get("mtime") or found.get("LastModified")
        size = found.get("size")
        return RemoteFile(name, size if isinstance(size, int) else None, str(stamp or size))

    def _block(self, address: str, name: str, start: int, end: int) -> bytes:
        try:
            block: bytes = self._ready().cat_file(_path(address, name), start=start, end=end)
        except Exception as error:
            raise _failed(address, name, error) from error
        return block

    def _ready(self) -> Any:
        if self._file_system is None:
            self._file_system = self._open(self._scheme)
        return self._file_system


def _path(address: str, name: str) -> str:
    return f"{address.partition('://')[2].rstrip('/')}/{name}"


def _failed(address: str, name: str, error: Exception) -> Exception:
    """Errors of our own pass; what a library says is told by its kind only: its text may hold signed addresses."""
    if isinstance(error, StartError):
        return error
    missing = isinstance(error, FileNotFoundError | PermissionError)
    if missing:
        message = f"{address} has no {name}, or may not be read with the keys that are set."
    else:
        message = (
            f"{address}/{name} cannot be read ({type(error).__name__}). Check address, network and keys."
        )
    return FetchFailed(message, field="lora_path", value=address, retry_after=None if missing else 5)
