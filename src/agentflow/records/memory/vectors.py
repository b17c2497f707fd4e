"""Vectors as the record has them, and how far a place outside Postgres has heard of them.

A place is filled by item number, then told what changed. The log is read up to the oldest transaction that is still
open, so that nothing commits behind a reader's back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentflow.protocols import Vectors
from agentflow.records.connections import Connection, Connections
from agentflow.retrieval.codes import decoded

BATCH = 500

SPOTS = "select id, tenant, name, dim from collection where name = any(%(names)s::text[]) order by id"
JOIN = """
insert into vector_place (collection_id, tenant, place, lasting, written, worker)
values (%(collection)s, %(tenant)s, %(place)s, %(lasting)s, pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1,
        %(worker)s)
on conflict (collection_id, place) do nothing
"""
# Whoever wrote before the place was known has ended once this transaction is the oldest.
BORN = """
update vector_place set born = pg_snapshot_xmax(pg_current_snapshot())::text::bigint
where collection_id = %(collection)s and place = %(place)s and born is null
"""
TAKE = """
update vector_place set worker = %(worker)s, lease_until = now() + interval '2 minutes', updated_at = now()
where collection_id = %(collection)s and place = %(place)s and (worker = %(worker)s or lease_until <= now())
returning filled, written, log_id, serving,
          coalesce(born <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint, false)
"""
RELEASE = "update vector_place set lease_until = now() where lease_until > now()"
KEEP = """
update vector_place set filled = %(filled)s, written = %(written)s, log_id = %(log)s, serving = %(serving)s,
                        last_error = null, updated_at = now()
where collection_id = %(collection)s and place = %(place)s and worker = %(worker)s
"""
PROVEN = """
update vector_place set items = %(items)s, digest = %(digest)s
where collection_id = %(collection)s and place = %(place)s and worker = %(worker)s
"""
SERVES = "select serving from vector_place where collection_id = %(collection)s and place = %(place)s"
LEAVE = "delete from vector_place where collection_id = %(collection)s and place = %(place)s"
# A folder that was emptied has another name after the "#": what it was before will hear of nothing any more.
EMPTIED = """
delete from vector_place
where collection_id = %(collection)s and place <> %(place)s and lasting and position(' #' in place) > 0
  and split_part(place, ' #', 1) = split_part(%(place)s, ' #', 1)
"""
FAILED = """
update vector_place set last_error = %(error)s where collection_id = %(collection)s and place = %(place)s
"""
NEXT = """
select m.id, m.scope_id, m.embedding from memory m
where m.collection_id = %(collection)s and m.id > %(filled)s and m.embedding is not null
order by m.id limit %(limit)s
"""
CHANGES = """
select l.written, l.id, l.scope_id, l.item_id, m.embedding
from vector_log l
left join memory m on m.collection_id = l.collection_id and m.id = l.item_id and m.scope_id = l.scope_id
where l.collection_id = %(collection)s and (l.written, l.id) > (%(written)s, %(log)s)
  and l.written < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
order by l.written, l.id limit %(limit)s
"""
SCOPES = "select id from scope where collection_id = %(collection)s order by id"
IDS = """
select id from memory where collection_id = %(collection)s and scope_id = %(scope)s and embedding is not null
order by id
"""
SOME = """
select id, embedding from memory
where collection_id = %(collection)s and scope_id = %(scope)s and id = any(%(ids)s::bigint[]) and embedding is not null
"""
# Places that nobody has asked for in a week (in RAM: in ten minutes) are filled anew if they come back.
PRUNE = """
with gone as (
  delete from vector_place
  where updated_at < now() - case when lasting then interval '7 days' else interval '10 minutes' end
  returning collection_id, place)
delete from vector_log l where l.written < coalesce(
  (select min(p.written) from vector_place p
   where p.collection_id = l.collection_id
     and not exists (select from gone where gone.collection_id = p.collection_id and gone.place = p.place)),
  pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
"""
STATUS = """
select c.name, c.tenant, p.place, p.serving, p.items, encode(p.digest, 'hex'), p.last_error,
       (select count(*) from vector_log l
        where l.collection_id = p.collection_id and (l.written, l.id) > (p.written, p.log_id)),
       extract(epoch from now() - p.updated_at)::float8
from vector_place p join collection c on c.id = p.collection_id
where %(name)s::text is null or c.name = %(name)s order by c.name, c.tenant, p.place
"""


@dataclass(frozen=True)
class Spot:
    """A collection of one tenant, and how long its vectors are."""

    collection: int
    tenant: int
    name: str
    dim: int


@dataclass(frozen=True)
class Heard:
    """How far a place is: filled up to an item, then told changes up to a line of the log.

    `ready`: all who wrote before the place was known have ended, so filling misses nothing.
    """

    filled: int
    written: int
    log: int
    serving: bool
    ready: bool = True


@dataclass(frozen=True)
class Change:
    """What a place is told about an item; `vector` None: it is gone."""

    scope: int
    item: int
    vector: Vectors | None


@dataclass(frozen=True)
class Status:
    """What people are told of a place: `waiting` changes it has not heard of, `silent` seconds since it was served."""

    collection: str
    tenant: int
    place: str
    serving: bool
    items: int
    digest: str | None
    error: str | None
    waiting: int
    silent: float


@dataclass(frozen=True)
class VectorRecord:
    """The record's side of a place; `worker` names this process."""

    connections: Connections
    worker: str

    async def spots(self, names: Sequence[str]) -> list[Spot]:
        async with self.connections.background() as connection:
            rows = await (await connection.execute(SPOTS, {"names": list(names)})).fetchall()
        return [Spot(*row) for row in rows]

    async def take(self, spot: Spot, place: str) -> Heard | None:
        """The right to tell the place, for two minutes; None: unknown (see `join`) or another process has it."""
        async with self.connections.background() as connection:
            row = await (await connection.execute(TAKE.encode(), self._of(spot, place))).fetchone()
        return None if row is None else Heard(*row)

    async def release_all(self) -> None:
        """End every right to tell: only for the sole owner of a database, at its start."""
        async with self.connections.background() as connection:
            await connection.execute(RELEASE)

    async def serves(self, spot: Spot, place: str) -> bool:
        """Whether the place holds everything, whichever process tells it."""
        async with self.connections.background() as connection:
            row = await (await connection.execute(SERVES, self._of(spot, place))).fetchone()
        return bool(row and row[0])

    async def join(self, spot: Spot, place: str, *, lasting: bool) -> bool:
        """Make a place known; from now on changes are noted. False if it was known."""
        parameters = {**self._of(spot, place), "tenant": spot.tenant, "lasting": lasting}
        async with self.connections.background() as connection:
            made = await connection.execute(JOIN, parameters)
            await connection.execute(BORN, self._of(spot, place))
            if lasting and made.rowcount:
                await connection.execute(EMPTIED, self._of(spot, place))
        return made.rowcount == 1

    async def keep(self, spot: Spot, place: str, heard: Heard) -> None:
        reached = {
            "filled": heard.filled,
            "written": heard.written,
            "log": heard.log,
            "serving": heard.serving,
        }
        async with self.connections.background() as connection:
            await connection.execute(KEEP, {**self._of(spot, place), **reached})

    async def proven(self, spot: Spot, place: str, items: int, digest: bytes) -> None:
        """Keep what a comparison of record and place gave."""
        async with self.connections.background() as connection:
            await connection.execute(PROVEN, {**self._of(spot, place), "items": items, "digest": digest})

    async def failed(self, spot: Spot, place: str, error: str) -> None:
        async with self.connections.background() as connection:
            await connection.execute(FAILED, {**self._of(spot, place), "error": error})

    async def leave(self, spot: Spot, place: str) -> None:
        """The place is told nothing any more."""
        async with self.connections.background() as connection:
            await connection.execute(LEAVE, self._of(spot, place))

    async def unfilled(self, spot: Spot, heard: Heard) -> tuple[list[Change], Heard]:
        """The next items for a place that is being filled, and how far it is with them."""
        parameters = {"collection": spot.collection, "filled": heard.filled, "limit": BATCH}
        async with self.connections.background() as connection:
            rows = await _binary(connection, NEXT, parameters)
        vectors = decoded([code for *_, code in rows], spot.dim)
        found = [Change(scope, item, vector) for (item, scope, _), vector in zip(rows, vectors, strict=True)]
        return found, replace(heard, filled=rows[-1][0]) if rows else heard

    async def changes(self, spot: Spot, heard: Heard) -> tuple[list[Change], Heard]:
        """What a place has not heard of, each item once and as it is now."""
        parameters = {
            "collection": spot.collection,
            "written": heard.written,
            "log": heard.log,
            "limit": BATCH,
        }
        async with self.connections.background() as connection:
            rows = await _binary(connection, CHANGES, parameters)
        latest = {(scope, item): code for _, _, scope, item, code in rows}
        vectors = iter(decoded([code for code in latest.values() if code], spot.dim))
        found = [
            Change(scope, item, next(vectors) if code else None) for (scope, item), code in latest.items()
        ]
        return found, replace(heard, written=rows[-1][0], log=rows[-1][1]) if rows else heard

    async def scopes(self, spot: Spot) -> list[int]:
        async with self.connections.background() as connection:
            cursor = await connection.execute(SCOPES, {"collection": spot.collection})
            return [row[0] for row in await cursor.fetchall()]

    async def ids(self, spot: Spot, scope: int) -> list[int]:
        """Items of a scope that have a vector, in order."""
        async with self.connections.background() as connection:
            cursor = await connection.execute(IDS, {"collection": spot.collection, "scope": scope})
            return [row[0] for row in await cursor.fetchall()]

    async def some(self, spot: Spot, scope: int, ids: Sequence[int]) -> tuple[list[int], Vectors]:
        """Vectors of those items that still have one: float32 [n, dim]."""
        parameters = {"collection": spot.collection, "scope": scope, "ids": list(ids)}
        async with self.connections.background() as connection:
            rows = await _binary(connection, SOME, parameters)
        return [item for item, _ in rows], decoded([code for _, code in rows], spot.dim)

    async def prune(self) -> None:
        """Forget places nobody asks for any more, and lines of the log that every place has heard."""
        async with self.connections.background() as connection:
            await connection.execute(PRUNE)

    async def status(self, name: str | None = None) -> list[Status]:
        """All places of a collection, or of all."""
        async with self.connections.background() as connection:
            rows = await (await connection.execute(STATUS, {"name": name})).fetchall()
        return [Status(*row) for row in rows]

    def _of(self, spot: Spot, place: str) -> dict[str, object]:
        return {"collection": spot.collection, "place": place, "worker": self.worker}


async def _binary(connection: Connection, statement: str, parameters: Mapping[str, object]) -> list[Any]:
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(statement.encode(), parameters)
        return list(await cursor.fetchall())
