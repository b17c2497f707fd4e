"""Collections whose vectors are searched outside Postgres: asked, told of changes, moved.

Postgres goes on to answer while a place is filled, and a former place until the new one holds everything.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from agentflow.errors import HomeDown
from agentflow.protocols import VectorHome, Vectors
from agentflow.records.memory.scopes import Place
from agentflow.records.memory.teller import LEASE, Proof, Teller
from agentflow.records.memory.vectors import Spot, VectorRecord

log = structlog.get_logger(__name__)
PAUSE = 5.0
"""Seconds for which a place that did not answer is not asked."""


@dataclass
class Places:
    """`homes` by collection; `within`: seconds that a search waits for one, half a second where nothing is said.

    `coming` are the places that collections are moving to; the present ones answer until these hold everything.
    """

    record: VectorRecord
    homes: dict[str, VectorHome] = field(default_factory=dict)
    within: dict[str, float] = field(default_factory=dict)
    coming: dict[str, VectorHome] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)
    """Why a place, by its name, could not be told anything the last time."""
    clock: Callable[[], float] = time.monotonic
    _tellers: dict[tuple[int, str], Teller] = field(default_factory=dict)
    _down: dict[str, float] = field(default_factory=dict)
    _pruned: float = float("-inf")

    async def nearest(self, collection: str, place: Place, vector: Vectors, k: int) -> list[int] | None:
        """Ids of the scope's nearest vectors; None: Postgres is to be asked. Raises HomeDown."""
        home = self.homes.get(collection)
        if home is None or not self._serves(place.collection_id, home):
            return None
        if self._down.get(collection, 0.0) > self.clock():
            raise HomeDown(f"{home.place} did not answer a moment ago.", retry_after=PAUSE)
        within = self.within.get(collection, 0.5)
        try:
            async with asyncio.timeout(within):
                return await home.nearest(place.scope_id, vector, k)
        except (HomeDown, TimeoutError) as error:
            self._down[collection] = self.clock() + PAUSE
            reason = error.message if isinstance(error, HomeDown) else f"no answer within {within} s"
            raise HomeDown(f"{home.place}: {reason}", value=home.place, retry_after=PAUSE) from error

    async def follow(self) -> int:
        """Tell every place what it has not heard of; returns how many changes. Raises DatabaseDown."""
        if not (self.homes or self.coming):
            return 0
        told = 0
        spots = await self.record.spots([*{*self.homes, *self.coming}])
        for spot in spots:
            for home in self._homes_of(spot.name):
                told += await self._tell(spot, home)
        for name in list(self.coming):
            await self._arrived(name, [spot for spot in spots if spot.name == name])
        if self.clock() - self._pruned > LEASE:
            await self.record.prune()
            self._pruned = self.clock()
        return told

    async def settle(self) -> None:
        """Until every place has heard of everything that is committed and serves."""
        while await self.follow():  # noqa: ASYNC110 - it waits for other processes' transactions
            await asyncio.sleep(0.01)

    async def move(self, name: str, home: VectorHome | None, *, within: float = 0.5) -> None:
        """Search the collection in another place (None: in Postgres) as soon as that holds everything.

        The former place is emptied then. A move that is under way is given up for this one.
        """
        given_up = self.coming.pop(name, None)
        if given_up is not None:
            await self._left(name, given_up)
        self.within[name] = within
        if home is None:
            former = self.homes.pop(name, None)
            if former is not None:
                await self._left(name, former)
            return
        self.coming[name] = home

    async def prove(self, spot: Spot) -> Proof:
        """Compare a place with the record, item by item, and mend it. Raises HomeDown if that cannot be done."""
        home = self.homes[spot.name]
        await home.open()
        return await self._teller(spot, home).prove()

    async def close(self) -> None:
        """Write down how far the places are, and close them."""
        for teller in self._tellers.values():
            await teller.close()
        for home in (*self.homes.values(), *self.coming.values()):
            await home.close()

    def _homes_of(self, name: str) -> Iterator[VectorHome]:
        """Where the collection is searched, and where it moves to."""
        yield from filter(None, (self.homes.get(name), self.coming.get(name)))

    def _teller(self, spot: Spot, home: VectorHome) -> Teller:
        fresh = Teller(self.record, spot, home, self.clock)
        return self._tellers.setdefault((spot.collection, home.place), fresh)

    def _serves(self, collection: int, home: VectorHome) -> bool:
        teller = self._tellers.get((collection, home.place))
        return teller is not None and teller.serving

    async def _tell(self, spot: Spot, home: VectorHome) -> int:
        """A place that is down waits, with the reason in the record."""
        try:
            await home.open()
            told = await self._teller(spot, home).follow()
        except HomeDown as error:
            self.trouble[home.place] = error.message
            log.warning("vectors wait for their place", collection=spot.name, reason=error.message)
            await self.record.failed(spot, home.place, error.message)
            return 0
        self.trouble.pop(home.place, None)
        return told

    async def _arrived(self, name: str, spots: Sequence[Spot]) -> None:
        """The new place answers from here on, if it holds everything of every tenant."""
        home = self.coming[name]
        if not all(self._serves(spot.collection, home) for spot in spots):
            return
        former = self.homes.get(name)
        self.homes[name] = home
        del self.coming[name]
        if former is not None:
            await self._left(name, former)

    async def _left(self, name: str, home: VectorHome) -> None:
        """Empty a place; what cannot be reached is named, for people to delete."""
        try:
            for spot in await self.record.spots([name]):
                await self._teller(spot, home).leave()
                del self._tellers[spot.collection, home.place]
        except HomeDown as error:
            log.warning("a former place still holds vectors", place=home.place, reason=error.message)
        await home.close()
