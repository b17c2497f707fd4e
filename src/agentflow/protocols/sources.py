"""Where adapters come from."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class RemoteFile:
    """A file that a source offers. `size` None: the source does not say. `stamp` changes with the content."""

    name: str
    size: int | None
    stamp: str


class Source(Protocol):
    """Where adapters come from: hf://, s3:// or https:// folders. Raises FetchFailed."""

    async def look(self, address: str, names: Sequence[str]) -> Sequence[RemoteFile]:
        """Those files of the folder at the address."""
        ...

    def read(self, address: str, file: RemoteFile, *, start: int) -> AsyncGenerator[bytes]:
        """The file's bytes from `start` on; a source that cannot begin there begins at 0 and says so by an
        empty first chunk.
        """
        ...
