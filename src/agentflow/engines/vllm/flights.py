"""Generations under way per adapter: its weights may be removed only when there are none."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Flights:
    """Counted by `of`; `landed` waits for the last one."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._landed: dict[str, asyncio.Event] = {}

    @contextmanager
    def of(self, adapter: str | None) -> Iterator[None]:
        if adapter is None:
            yield
            return
        self._count[adapter] = self._count.get(adapter, 0) + 1
        try:
            yield
        finally:
            self._count[adapter] -= 1
            if not self._count[adapter]:
                del self._count[adapter]
                self._landed.pop(adapter, asyncio.Event()).set()

    async def landed(self, adapter: str) -> None:
        if adapter in self._count:
            await self._landed.setdefault(adapter, asyncio.Event()).wait()
