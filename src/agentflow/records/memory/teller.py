"""One collection's vectors and the place that is told of them: filled, kept in step, proven.

Nothing here is lost by a crash: how far a place is stands in the record, is written only after the place has kept what
it was told, and being told twice changes nothing.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import structlog

from agentflow.errors import HomeDown
from agentflow.protocols import VectorHome, Vectors
from agentflow.records.memory.vectors import Change, Heard, Spot, VectorRecord

log = structlog.get_logger(__name__)
LEASE, KEPT = 60.0, 10.0
"""Seconds after which the right to tell is taken again, and between notes of how far a place is."""
CHUNK = 1000


@dataclass(frozen=True)
class Proof:
    """A place holds exactly the record's items: how many, and sha256 over their numbers, scope by scope."""

    items: int
    digest: bytes


@dataclass
class Teller:
    """Tells `home` what the record has; one process at a time does, the others only know whether it serves."""

    record: VectorRecord
    spot: Spot
    home: VectorHome
    clock: Callable[[], float]
    serving: bool = False

    def __post_init__(self) -> None:
        self.place = self.home.place
        self._heard: Heard | None = None
        self._taken = self._kept = float("-inf")
        self._unkept = False

    async def follow(self) -> int:
        """Tell what the place has not heard of; returns how many changes. Raises DatabaseDown, HomeDown."""
        if not await self._take() or self._heard is None:
            return 0
        if not self._heard.ready:
            return 1
        count = 0 if self._heard.serving else await self._fill()
        count += await self._catch_up()
        if not self._heard.serving:
            await self._prove()
            self._heard = replace(self._heard, serving=True)
            await self._keep()
            log.info("vectors are searched in their place", collection=self.spot.name, place=self.place)
        elif self._unkept and self.clock() - self._kept > KEPT:
            await self._keep()
        self.serving = True
        return count

    async def prove(self) -> Proof:
        """Compare the place with the record, item by item, and mend it. Raises HomeDown if that cannot be done."""
        if not await self._take() or self._heard is None or not self._heard.ready:
            raise HomeDown(
                f"Another process is telling {self.place}; ask again in a moment.", retry_after=LEASE
            )
        return await self._prove()

    async def close(self) -> None:
        """Write down how far the place is."""
        if self._unkept:
            await self._keep()

    async def leave(self) -> None:
        """Empty the place and tell it nothing any more."""
        self.serving = False
        for scope in await self.record.scopes(self.spot):
            await self.home.drop(scope)
        await self.record.leave(self.spot, self.place)

    async def _take(self) -> bool:
        """The right to tell the place; a place that the record does not know begins empty."""
        now, first = self.clock(), self._heard is None
        if self._heard is not None and self._heard.ready and now - self._taken < LEASE:
            return True
        heard = await self.record.take(self.spot, self.place)
        if heard is None and await self.record.join(self.spot, self.place, lasting=self.home.lasting):
            self.serving = False
            for scope in await self.record.scopes(self.spot):
                await self.home.drop(scope)
            heard = await self.record.take(self.spot, self.place)
        if heard is None:
            self._heard, self.serving = None, await self.record.serves(self.spot, self.place)
            return False
        if first and heard.serving:
            heard = await self._believed(heard)
        if self._heard is None or not self._heard.ready or now - self._taken > 2 * LEASE:
            self._heard, self._kept = heard, now
        self._taken = now
        return True

    async def _believed(self, heard: Heard) -> Heard:
        """At the start: a place that holds nothing of what it once heard is filled again."""
        for scope in (await self.record.scopes(self.spot))[:CHUNK]:
            ids = (await self.record.ids(self.spot, scope))[:1]
            if ids and await self.home.missing(scope, ids) and not await self.home.count(scope):
                log.warning("vectors are gone from their place", collection=self.spot.name, place=self.place)
                return replace(heard, filled=0, serving=False)
        return heard

    async def _fill(self) -> int:
        count = 0
        while self._heard is not None:
            changes, heard = await self.record.unfilled(self.spot, self._heard)
            if not changes:
                break
            count += len(changes)
            await self._tell(changes, heard)
        return count

    async def _catch_up(self) -> int:
        count = 0
        while self._heard is not None:
            changes, heard = await self.record.changes(self.spot, self._heard)
            if heard == self._heard:
                break
            count += len(changes)
            await self._tell(changes, heard)
        return count

    async def _tell(self, changes: Sequence[Change], heard: Heard) -> None:
        for scope, ids, vectors in _puts(changes):
            await self.home.put(scope, ids, vectors)
        for scope, ids in _deletions(changes):
            await self.home.delete(scope, ids)
        self._heard, self._unkept = heard, True
        if self.clock() - self._kept > KEPT:
            await self._keep()
        if self.clock() - self._taken > LEASE:
            if await self.record.take(self.spot, self.place) is None:
                self._heard = None
                raise HomeDown(f"Another process has begun to tell {self.place}.", retry_after=LEASE)
            self._taken = self.clock()

    async def _keep(self) -> None:
        if self._heard is not None:
            await self.home.flush()
            await self.record.keep(self.spot, self.place, self._heard)
            self._kept, self._unkept = self.clock(), False

    async def _prove(self) -> Proof:
        items, digest = 0, sha256()
        for scope in await self.record.scopes(self.spot):
            ids = await self._proven(scope)
            items += len(ids)
            digest.update(np.array([scope, len(ids), *ids], "<i8").tobytes())
        proof = Proof(items, digest.digest())
        await self.record.proven(self.spot, self.place, proof.items, proof.digest)
        return proof

    async def _proven(self, scope: int) -> list[int]:
        """The scope's ids once the place holds exactly these; turns may go on meanwhile."""
        for attempt in range(6):
            ids = await self.record.ids(self.spot, scope)
            missing = await self._missing(scope, ids)
            if not missing and await self.home.count(scope) in (None, len(ids)):
                return ids
            if missing:
                await self._put(scope, missing)
            elif attempt < 3:
                await self._catch_up()
            else:
                await self.home.drop(scope)
                await self._put(scope, ids)
            await asyncio.sleep(0.2 * attempt)
        raise HomeDown(
            f"{self.place} does not keep what it is given: scope {scope} differs from the record.",
            value=self.place,
        )

    async def _missing(self, scope: int, ids: Sequence[int]) -> list[int]:
        chunks = (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
        return [one for chunk in chunks for one in await self.home.missing(scope, chunk)]

    async def _put(self, scope: int, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), CHUNK):
            known, vectors = await self.record.some(self.spot, scope, ids[start : start + CHUNK])
            if known:
                await self.home.put(scope, known, vectors)


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
