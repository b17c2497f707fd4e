"""A source of adapters in memory that can hang, break off and lie."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field

from agentflow.errors import FetchFailed
from agentflow.protocols import RemoteFile


@dataclass
class FakeSource:
    """Serves `folders`: address to file name to bytes.

    `says` replaces announced sizes by file name. `breaks_after` bytes a read fails, once per entry. `gate` holds
    every block back until it is set; `delay` is seconds per block. `reads` records (name, start).
    """

    folders: Mapping[str, Mapping[str, bytes]]
    says: dict[str, int | None] = field(default_factory=dict)
    stamp: str = "1"
    block: int = 64
    breaks_after: list[int] = field(default_factory=list)
    gate: asyncio.Event | None = None
    delay: float = 0.0
    reads: list[tuple[str, int]] = field(default_factory=list)

    async def look(self, address: str, names: Sequence[str]) -> Sequence[RemoteFile]:
        return [self._file(address, name) for name in names]

    async def read(self, address: str, file: RemoteFile, *, start: int) -> AsyncGenerator[bytes, None]:
        self.reads.append((file.name, start))
        content = self.folders[address][file.name]
        limit = self.breaks_after.pop(0) if self.breaks_after else None
        for position in range(start, len(content), self.block):
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(self.delay)
            if limit is not None and position - start >= limit:
                raise FetchFailed(f"{address} broke off.", retry_after=1)
            yield content[position : position + self.block]

    def _file(self, address: str, name: str) -> RemoteFile:
        if name not in self.folders.get(address, {}):
            raise FetchFailed(f"{address} has no {name}.", field="lora_path", value=address)
        size = self.says.get(name, len(self.folders[address][name]))
        return RemoteFile(name, size, self.stamp)
