"""Waiting without polling: who waits for a key is woken when somebody, here or elsewhere, says it changed."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Wakes:
    """Waiters by key, in the order in which they came."""

    waiting: dict[str, list[asyncio.Event]] = field(default_factory=dict)

    @contextmanager
    def on(self, *keys: str) -> Iterator[asyncio.Event]:
        """An event that is set when one of `keys` changes from now on; the waiter clears it."""
        event = asyncio.Event()
        for key in keys:
            self.waiting.setdefault(key, []).append(event)
        try:
            yield event
        finally:
            for key in keys:
                self._left(key, event)

    def _left(self, key: str, event: asyncio.Event) -> None:
        self.waiting[key].remove(event)
        if not self.waiting[key]:
            del self.waiting[key]

    def first(self, key: str) -> None:
        """Wake who has waited longest: for a turn that only one can take."""
        for event in self.waiting.get(key, [])[:1]:
            event.set()

    def every(self, key: str) -> None:
        """Wake all who wait for the key."""
        for event in self.waiting.get(key, []):
            event.set()

    def everybody(self) -> None:
        """Something may have been missed."""
        for waiters in self.waiting.values():
            for event in waiters:
                event.set()


async def woken(event: asyncio.Event, *, within: float) -> bool:
    """Wait until the event is set, and clear it; False when `within` seconds have passed before."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()
    was = event.is_set()
    event.clear()
    return was
