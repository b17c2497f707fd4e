"""Is memory whole? Counts that must agree, vectors still owed, and how much of the nearest the indexes find."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from pgvector import HalfVector
from psycopg import sql

from agentflow.protocols import Vectors
from agentflow.records.connections import Connection, Connections
from agentflow.records.memory.places import Places
from agentflow.records.memory.scopes import Place, Scopes
from agentflow.retrieval.codes import decoded
from agentflow.turn import Json

K = 10
SAMPLE = 40
LOW = 0.9
"""Recall below which an index or a place is worth a look."""

# Per scope: items, their length, postings (if it has them) and what terms count must say the same.
COUNTS = """
select c.name, s.id, s.n_docs, m.items, s.sum_len, m.length, p.postings, p.frequencies, m.words, m.owed
from collection c join scope s on s.collection_id = c.id
cross join lateral (
  select count(*) filter (where bow is not null and not hidden) as items,
         coalesce(sum(doc_len) filter (where bow is not null and not hidden), 0) as length,
         coalesce(sum(octet_length(bow) / 6) filter (where not hidden and s.posted), 0) as words,
         count(*) filter (where embedding is null and not hidden) as owed
  from memory where collection_id = c.id and scope_id = s.id) m
cross join lateral (
  select coalesce(sum(cardinality(entries)), 0) as postings, coalesce(sum(df), 0) as frequencies
  from posting where scope_id = s.id) p
where c.tenant = %(tenant)s order by c.name, s.id
"""
LARGEST = """
select c.name, c.id, c.dim, s.id, s.n_docs from collection c
join lateral (select id, n_docs from scope where collection_id = c.id order by n_docs desc limit 1) s on true
where c.tenant = %(tenant)s and s.n_docs > 0 order by c.name
"""
SAMPLED = """
select embedding from memory where collection_id = %(collection)s and scope_id = %(scope)s and embedding is not null
order by md5(id::text) limit %(sample)s
"""
CODES = """
select id, embedding from memory
where collection_id = %(collection)s and scope_id = %(scope)s and embedding is not null and id > %(after)s
order by id limit 1000
"""
INDEXED = """
select id from memory
where collection_id = {collection} and scope_id = {scope} and vector is not null
order by vector::halfvec({dim}) <=> %s::halfvec({dim}) limit {k}
"""


@dataclass(frozen=True)
class Mismatch:
    """Counts of a scope that differ."""

    collection: str
    scope: int
    what: str
    counted: int
    noted: int


@dataclass(frozen=True)
class Found:
    """Share of the ten nearest that a collection's search finds, over a sample of its largest scope's own vectors.

    `by` names what searches: "exactly", "index", or the place.
    """

    collection: str
    by: str
    items: int
    recall: float


@dataclass(frozen=True)
class MemoryCheck:
    """Looks, and changes nothing. Raises DatabaseDown, HomeDown."""

    connections: Connections
    scopes: Scopes
    places: Places

    async def look(self, tenant: int) -> Json:
        """Mismatches, vectors owed, recall per collection; `ok` if nothing is wrong."""
        async with self.connections.background() as connection:
            await connection.execute("set statement_timeout = '10min'")
            try:
                rows = await (await connection.execute(COUNTS, {"tenant": tenant})).fetchall()
                found = await self._recalls(connection, tenant)
            finally:
                await connection.execute("reset statement_timeout")
        wrong = [one for row in rows for one in _mismatches(row)]
        low = [one for one in found if one.recall < LOW]
        return {
            "ok": not (wrong or low),
            "mismatches": [asdict(one) for one in wrong],
            "owed": sum(row[9] for row in rows),
            "recall": [asdict(one) for one in found],
        }

    async def _recalls(self, connection: Connection, tenant: int) -> list[Found]:
        rows = await (await connection.execute(LARGEST, {"tenant": tenant})).fetchall()
        return [await self._recall(connection, *row) for row in rows]

    async def _recall(
        self, connection: Connection, name: str, collection: int, dim: int, scope: int, items: int
    ) -> Found:
        home = self.places.homes.get(name)
        indexed = collection in self.scopes.indexed
        if home is None and not indexed:
            return Found(name, "exactly", items, 1.0)
        place = Place(collection, scope)
        parameters = {"collection": collection, "scope": scope, "sample": SAMPLE}
        cursor = await connection.execute(SAMPLED, parameters)
        sample = decoded([code for (code,) in await cursor.fetchall()], dim)
        shares = []
        for vector, exact in zip(sample, await _exactly(connection, place, sample), strict=True):
            given = (
                await self.places.nearest(name, place, vector, K)
                if home
                else await _indexed(connection, place, dim, vector)
            )
            if given is not None:
                shares.append(len(set(exact) & set(given)) / len(exact))
        by = home.place if home else "index"
        return Found(name, by, items, round(float(np.mean(shares)), 4) if shares else 1.0)


async def _exactly(connection: Connection, place: Place, sample: Vectors) -> list[list[int]]:
    """Of each vector the ids of the nearest, nearest first; the scope is read once, a batch at a time."""
    ids, near = np.empty((len(sample), 0), np.int64), np.empty((len(sample), 0), np.float32)
    reached: Json = {"collection": place.collection_id, "scope": place.scope_id, "after": 0}
    while rows := await (await connection.execute(CODES, reached)).fetchall():
        items = np.array([item for item, _ in rows])
        vectors = decoded([code for _, code in rows], sample.shape[1])
        ids = np.concatenate([ids, np.broadcast_to(items, (len(sample), len(items)))], axis=1)
        near = np.concatenate([near, sample @ vectors.T], axis=1)
        best = np.argsort(-near, axis=1, kind="stable")[:, :K]
        ids, near = np.take_along_axis(ids, best, axis=1), np.take_along_axis(near, best, axis=1)
        reached["after"] = items[-1].item()
    found: list[list[int]] = ids.tolist()
    return found


async def _indexed(connection: Connection, place: Place, dim: int, vector: Vectors) -> list[int] | None:
    """None: the scope has no vectors that pgvector compares."""
    numbers = {"collection": place.collection_id, "dim": dim, "scope": place.scope_id, "k": K}
    asked = sql.SQL(INDEXED).format(**{name: sql.Literal(number) for name, number in numbers.items()})
    cursor = await connection.execute(asked, [HalfVector(vector)])
    return [row[0] for row in await cursor.fetchall()] or None


def _mismatches(row: Sequence[int | str]) -> list[Mismatch]:
    name, scope, documents, items, length, lengths, postings, frequencies, words, _ = row
    pairs = (
        ("items", items, documents),
        ("length", lengths, length),
        ("postings", words, postings),
        ("term counts", postings, frequencies),
    )
    return [
        Mismatch(str(name), int(scope), what, int(counted), int(noted))
        for what, counted, noted in pairs
        if int(counted) != int(noted)
    ]
