"""The outbox: what memories are still owed: their vectors, after an upgrade their words, and their scopes' postings."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from pgvector import HalfVector

from agentflow.errors import EmbedderError
from agentflow.protocols import Embedder
from agentflow.records.connections import Connection, Connections
from agentflow.records.memory import postings
from agentflow.records.memory.scopes import Place
from agentflow.records.memory.vocabulary import LANGUAGE, Vocabulary
from agentflow.records.memory.writing import INDEX, Text, indexed
from agentflow.retrieval.codes import coded
from agentflow.retrieval.terms import embedded_text, language_of

DUE = """
select o.id, o.collection_id, o.item_id, m.scope_id, m.speaker, m.content, m.said_at, m.lang
from outbox o left join memory m on m.collection_id = o.collection_id and m.id = o.item_id
where o.kind = %(kind)s and o.not_before <= now()
order by o.id for update of o skip locked limit %(limit)s
"""
FILL = """
update memory m set embedding = u.code, vector = case when s.posted then u.vector end
from unnest(%(collections)s::int[], %(items)s::bigint[], %(codes)s::bytea[], %(vectors)s::halfvec[])
     u(collection, item, code, vector) cross join scope s
where m.collection_id = u.collection and m.id = u.item and s.id = m.scope_id
"""
SENT = "delete from outbox where id = any(%(ids)s::bigint[])"
LATER = """
update outbox set attempts = least(attempts + 1, 30), last_error = %(error)s,
                  not_before = now() + least(300, power(2, attempts)) * interval '1 second'
where id = any(%(ids)s::bigint[])
"""
WAITING = """
select count(*), coalesce(extract(epoch from now() - min(created_at)), 0)::float8 from outbox where kind = 'embed'
"""

PUT_OFF = "select exists (select from outbox where kind in ('embed', 'index') and attempts > 0)"


class Row(NamedTuple):
    """What is owed, with its memory; `content` is None if that was forgotten meanwhile."""

    id: int
    collection: int
    item: int
    scope: int
    speaker: str
    content: str | None
    said_at: datetime
    lang: str

    @property
    def text(self) -> str:
        return embedded_text(self.content or "", speaker=self.speaker)


@dataclass(frozen=True)
class Outbox:
    """Drained by any process; a row is sent exactly once, or again after an error with growing pauses."""

    connections: Connections
    embedder: Embedder

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.connections, self.embedder)

    async def drain(self, *, limit: int = 64) -> int:
        """Index, embed and learn one batch each, and settle postings; returns how many vectors of memories were due.

        Raises DatabaseDown; the embedder's errors are kept in the rows.
        """
        while await self._batch("index", limit, self._index):
            pass
        while await postings.settle(self.connections):
            pass
        due = await self._batch("embed", limit, self._embed)
        await self.learn(limit=limit)
        return due

    async def learn(self, *, limit: int = 64) -> int:
        """Learn some of the words that memories brought; returns how many, none while the embedder is down."""
        try:
            return await self._vocabulary.learn(limit=limit)
        except EmbedderError:
            return 0

    async def waiting(self) -> tuple[int, float]:
        """How many vectors are owed, and the age of the oldest in seconds."""
        async with self.connections.background() as connection:
            row = await (await connection.execute(WAITING)).fetchone()
        return (int(row[0]), float(row[1])) if row else (0, 0.0)

    async def put_off(self) -> bool:
        """Whether something is owed that could not be paid."""
        async with self.connections.background() as connection:
            row = await (await connection.execute(PUT_OFF)).fetchone()
        return bool(row and row[0])

    async def _batch(
        self, kind: str, limit: int, send: Callable[[Connection, list[Row]], Awaitable[str | None]]
    ) -> int:
        """What is due of a kind, sent while its rows are locked; a reason puts it off."""
        async with self.connections.background() as connection, connection.transaction():
            cursor = await connection.execute(DUE, {"kind": kind, "limit": limit})
            rows = [Row(*row) for row in await cursor.fetchall()]
            if rows:
                error = await send(connection, [row for row in rows if row.content is not None])
                ids = [row.id for row in rows]
                await connection.execute(LATER if error else SENT, {"ids": ids, "error": error})
            return len(rows)

    async def _embed(self, connection: Connection, rows: list[Row]) -> str | None:
        try:
            vectors = await self.embedder.embed([row.text for row in rows])
        except EmbedderError as error:
            return error.message
        filled = {
            "collections": [row.collection for row in rows],
            "items": [row.item for row in rows],
            "codes": coded(vectors),
            "vectors": [HalfVector(vector) for vector in vectors],
        }
        await connection.execute(postings.BESIDE, {"scopes": [row.scope for row in rows]})
        await connection.execute(FILL, filled)
        await self._meet(connection, rows)
        return None

    async def _index(self, connection: Connection, rows: list[Row]) -> None:
        texts = [
            Text(
                Place(row.collection, row.scope),
                row.item,
                row.speaker,
                row.content or "",
                row.said_at,
                language_of(row.content or ""),
            )
            for row in {row.item: row for row in rows}.values()
        ]
        await connection.execute(INDEX.encode(), {**indexed(texts), "ids": [text.key for text in texts]})
        await self._meet(connection, rows)

    async def _meet(self, connection: Connection, rows: list[Row]) -> None:
        english = [(row.collection, row.text) for row in rows if row.lang == LANGUAGE]
        await self._vocabulary.meet(connection, english)
