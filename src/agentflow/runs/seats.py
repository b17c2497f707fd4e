"""How many runs execute at once in this process; whoever finds no seat waits for one, in order."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Seat:
    """Whether there was one, and whether it is kept."""

    taken: bool
    kept: bool = False


@dataclass
class Seats:
    """A free seat means that nobody waits: a seat that is given back goes to who has waited longest."""

    most: int
    taken: int = 0
    waiting: deque[asyncio.Event] = field(default_factory=deque)
    handed: list[asyncio.Event] = field(default_factory=list)

    def take(self, waiter: asyncio.Event | None = None) -> bool:
        """A seat, if there is one; else the waiter's event is set when there is one for it."""
        if waiter is not None and waiter in self.handed:
            self.handed.remove(waiter)
            return True
        if self.taken < self.most:
            self.taken += 1
            return True
        if waiter is not None and waiter not in self.waiting:
            self.waiting.append(waiter)
        return False

    @contextmanager
    def tried(self) -> Iterator[Seat]:
        """A seat, if one is free: for what is claimed meanwhile, else given back."""
        seat = Seat(self.take())
        try:
            yield seat
        finally:
            if seat.taken and not seat.kept:
                self.give()

    def give(self) -> None:
        """One seat is free again."""
        if self.waiting:
            waiter = self.waiting.popleft()
            self.handed.append(waiter)
            waiter.set()
        else:
            self.taken -= 1

    def leave(self, waiter: asyncio.Event) -> None:
        """It waits no longer; a seat that was meant for it goes on."""
        if waiter in self.waiting:
            self.waiting.remove(waiter)
        elif waiter in self.handed:
            self.handed.remove(waiter)
            self.give()
