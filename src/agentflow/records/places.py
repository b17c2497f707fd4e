"""Collections whose vectors are searched outside Postgres: filled, kept in step, asked, compared.

Postgres goes on to answer while a place is filled. Nothing here is lost by a crash: how far a place is stands in the
record, is written only after the place has kept what it was told, and being told twice changes nothing.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np
import structlog

from agentflow.errors import HomeDown
from agentflow.protocols import VectorHome, Vectors
from agentflow.records.scopes import Place
from agentflow.records.vectors import Change, Heard, Spot, VectorRecord

log = structlog.get_logger(__name__)
LEASE, KEPT, PAUSE = 60.0, 10.0, 5.0
"""Seconds: after which the right to tell is taken again, between notes of how far a place is, and for which a place
that did not answer is not asked.
"""
CHUNK = 1000


@dataclass
class _Told:
    """A collection's place as this process knows it."""

    heard: Heard
    taken: float
    kept: float
    unkept: bool = False


@dataclass(frozen=True)
class Proof:
    """A place holds exactly the record's items: how many, and sha256 over their numbers, scope by scope."""

    items: int
    digest: bytes


@dataclass
class Places:
    """`homes` by collection; `within`: seconds that a search waits for one, half a second where nothing is said.

    `coming` are the places that collections are moving to; the present ones answer until these hold everything.
    """

    record: VectorRecord
    homes: dict[str, VectorHome] = field(default_factory=dict)
    within: dict[str, float] = field(default_factory=dict)
    coming: dict[str, VectorHome] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _told: dict[tuple[int, str], _Told] = field(default_factory=dict)
    _serving: set[tuple[int, str]] = field(default_factory=set)
    _down: dict[str, float] = field(default_factory=dict)
    _pruned: float = float("-inf")

    async def nearest(self, collection: str, place: Place, vector: Vectors, k: int) -> list[int] | None:
        """Ids of the scope's nearest vectors; None: Postgres is to be asked. Raises HomeDown."""
        home = self.homes.get(collection)
        if home is None or (place.collection_id, home.place) not in self._serving:
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
            for home in filter(None, (self.homes.get(spot.name), self.coming.get(spot.name))):
                told += await self._heard(spot, home)
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
        told = await self._taken(spot, home)
        if told is None or not told.heard.ready:
            raise HomeDown(
                f"Another process is telling {home.place}; ask again in a moment.", retry_after=LEASE
            )
        return await self._prove(spot, home, told)

    async def close(self) -> None:
        """Keep how far the places are, and close them."""
        known = [*self.homes.items(), *self.coming.items()]
        for spot in [] if not self._told else await self.record.spots([name for name, _ in known]):
            for home in (home for name, home in known if name == spot.name):
                told = self._told.get((spot.collection, home.place))
                if told is not None and told.unkept:
                    await self._keep(spot, home, told)
        for _, home in known:
            await home.close()

    async def _heard(self, spot: Spot, home: VectorHome) -> int:
        """Tell a place; one that is down waits, with the reason in the record."""
        try:
            await home.open()
            return await self._follow(spot, home)
        except HomeDown as error:
            log.warning("vectors wait for their place", collection=spot.name, reason=error.message)
            await self.record.failed(spot, home.place, error.message)
            return 0

    async def _arrived(self, name: str, spots: Sequence[Spot]) -> None:
        """The new place answers from here on, if it holds everything of every tenant."""
        home = self.coming[name]
        if any((spot.collection, home.place) not in self._serving for spot in spots):
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
                for scope in await self.record.scopes(spot):
                    await home.drop(scope)
                await self.record.leave(spot, home.place)
                self._serving.discard((spot.collection, home.place))
                self._told.pop((spot.collection, home.place), None)
        except HomeDown as error:
            log.warning("a former place still holds vectors", place=home.place, reason=error.message)
        await home.close()

    async def _follow(self, spot: Spot, home: VectorHome) -> int:
        told = await self._taken(spot, home)
        if told is None:
            return 0
        count = 0
        if not told.heard.serving:
            if not told.heard.ready:
                return 1
            count = await self._fill(spot, home, told)
        count += await self._catch_up(spot, home, told)
        if not told.heard.serving:
            await self._prove(spot, home, told)
            told.heard = replace(told.heard, serving=True)
            await self._keep(spot, home, told)
            log.info("vectors are searched in their place", collection=spot.name, place=home.place)
        elif told.unkept and self.clock() - told.kept > KEPT:
            await self._keep(spot, home, told)
        self._serving.add((spot.collection, home.place))
        return count

    async def _taken(self, spot: Spot, home: VectorHome) -> _Told | None:
        """The right to tell the place; a place that the record does not know begins empty."""
        key, now = (spot.collection, home.place), self.clock()
        told = self._told.get(key)
        if told is not None and told.heard.ready and now - told.taken < LEASE:
            return told
        heard = await self.record.take(spot, home.place)
        if heard is None and await self.record.join(spot, home.place, lasting=home.lasting):
            self._serving.discard(key)
            for scope in await self.record.scopes(spot):
                await home.drop(scope)
            heard = await self.record.take(spot, home.place)
        if heard is None:
            return None
        if heard.serving and told is None:
            heard = await self._believed(spot, home, heard)
        if told is None or now - told.taken > 2 * LEASE or not told.heard.ready:
            told = _Told(heard, now, now)
        told.taken = now
        self._told[key] = told
        return told

    async def _believed(self, spot: Spot, home: VectorHome, heard: Heard) -> Heard:
        """At the start: a place that holds nothing of what it once heard is filled again."""
        for scope in (await self.record.scopes(spot))[:CHUNK]:
            ids = (await self.record.ids(spot, scope))[:1]
            if ids and await home.missing(scope, ids) and not await home.count(scope):
                log.warning("vectors are gone from their place", collection=spot.name, place=home.place)
                return replace(heard, filled=0, serving=False)
        return heard

    async def _fill(self, spot: Spot, home: VectorHome, told: _Told) -> int:
        count = 0
        while True:
            changes, heard = await self.record.unfilled(spot, told.heard)
            if not changes:
                return count
            count += len(changes)
            await self._tell(spot, home, told, changes, heard)

    async def _catch_up(self, spot: Spot, home: VectorHome, told: _Told) -> int:
        count = 0
        while True:
            changes, heard = await self.record.changes(spot, told.heard)
            if heard == told.heard:
                return count
            count += len(changes)
            await self._tell(spot, home, told, changes, heard)

    async def _tell(
        self, spot: Spot, home: VectorHome, told: _Told, changes: Sequence[Change], heard: Heard
    ) -> None:
        for scope, ids, vectors in _puts(changes):
            await home.put(scope, ids, vectors)
        for scope, ids in _deletions(changes):
            await home.delete(scope, ids)
        told.heard, told.unkept = heard, True
        if self.clock() - told.kept > KEPT:
            await self._keep(spot, home, told)
        if self.clock() - told.taken > LEASE:
            await self.record.take(spot, home.place)
            told.taken = self.clock()

    async def _keep(self, spot: Spot, home: VectorHome, told: _Told) -> None:
        await home.flush()
        await self.record.keep(spot, home.place, told.heard)
        told.kept, told.unkept = self.clock(), False

    async def _prove(self, spot: Spot, home: VectorHome, told: _Told) -> Proof:
        items, digest = 0, sha256()
        for scope in await self.record.scopes(spot):
            ids = await self._proven(spot, home, told, scope)
            items += len(ids)
            digest.update(np.array([scope, len(ids), *ids], "<i8").tobytes())
        proof = Proof(items, digest.digest())
        await self.record.proven(spot, home.place, proof.items, proof.digest)
        return proof

    async def _proven(self, spot: Spot, home: VectorHome, told: _Told, scope: int) -> list[int]:
        """The scope's ids once the place holds exactly these; turns may go on meanwhile."""
        for attempt in range(6):
            ids = await self.record.ids(spot, scope)
            missing = await _missing(home, scope, ids)
            if not missing and await home.count(scope) in (None, len(ids)):
                return ids
            if missing:
                await self._put(spot, home, scope, missing)
            elif attempt < 3:
                await self._catch_up(spot, home, told)
            else:
                await home.drop(scope)
                await self._put(spot, home, scope, ids)
            await asyncio.sleep(0.2 * attempt)
        raise HomeDown(
            f"{home.place} does not keep what it is given: scope {scope} differs from the record.",
            value=home.place,
        )

    async def _put(self, spot: Spot, home: VectorHome, scope: int, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), CHUNK):
            known, vectors = await self.record.some(spot, scope, ids[start : start + CHUNK])
            if known:
                await home.put(scope, known, vectors)


async def _missing(home: VectorHome, scope: int, ids: Sequence[int]) -> list[int]:
    chunks = (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
    return [one for chunk in chunks for one in await home.missing(scope, chunk)]


def _puts(changes: Iterable[Change]) -> list[tuple[int, list[int], Vectors]]:
    """Vectors to put, by scope."""
    groups: dict[int, list[tuple[int, Vectors]]] = {}
    for one in changes:
        if one.vector is not None:
            groups.setdefault(one.scope, []).append((one.item, one.vector))
    return [
        (scope, [item for item, _ in pairs], np.array([vector for _, vector in pairs], np.float32))
        for scope, pairs in groups.items()
    ]


def _deletions(changes: Iterable[Change]) -> list[tuple[int, list[int]]]:
    groups: dict[int, list[int]] = {}
    for one in changes:
        if one.vector is None:
            groups.setdefault(one.scope, []).append(one.item)
    return list(groups.items())
