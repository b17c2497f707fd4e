"""The outbox: what memories are still owed: their vectors, or after an upgrade their words."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from agentflow.errors import EmbedderError
from agentflow.protocols import Embedder
from agentflow.records.connections import Connection, Connections, vector_text
from agentflow.records.memories import INDEX, Text, indexed
from agentflow.records.scopes import Place
from agentflow.retrieval.terms import embedded_text, language_of

DUE = """
select o.id, o.collection_id, o.item_id, m.scope_id, m.speaker, m.content, m.said_at
from outbox o left join memory m on m.collection_id = o.collection_id and m.id = o.item_id
where o.kind = %(kind)s and o.not_before <= now()
order by o.id for update of o skip locked limit %(limit)s
"""
FILL = """
update memory m set embedding = u.vector::halfvec
from unnest(%(collections)s::int[], %(items)s::bigint[], %(vectors)s::text[]) u(collection, item, vector)
where m.collection_id = u.collection and m.id = u.item
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


Row = tuple[int, int, int, int, str, str | None, datetime]


@dataclass(frozen=True)
class Outbox:
    """Drained by any process; a row is sent exactly once, or again after an error with growing pauses."""

    connections: Connections
    embedder: Embedder

    async def drain(self, *, limit: int = 64) -> int:
        """Index and embed one batch each; returns how many vectors were due.

        Raises DatabaseDown; the embedder's errors are kept in the rows.
        """
        while await self._batch("index", limit, self._index):
            pass
        return await self._batch("embed", limit, self._embed)

    async def waiting(self) -> tuple[int, float]:
        """How many vectors are owed, and the age of the oldest in seconds."""
        async with self.connections.use() as connection:
            row = await (await connection.execute(WAITING)).fetchone()
        return (int(row[0]), float(row[1])) if row else (0, 0.0)

    async def _batch(
        self, kind: str, limit: int, send: Callable[[Connection, list[Row]], Awaitable[str | None]]
    ) -> int:
        """What is due of a kind, sent while its rows are locked; a reason puts it off."""
        async with self.connections.use() as connection, connection.transaction():
            rows = await (await connection.execute(DUE, {"kind": kind, "limit": limit})).fetchall()
            if rows:
                ids = [row[0] for row in rows]
                error = await send(connection, [row for row in rows if row[5] is not None])
                await connection.execute(LATER if error else SENT, {"ids": ids, "error": error})
            return len(rows)

    async def _embed(self, connection: Connection, rows: list[Row]) -> str | None:
        texts = [embedded_text(content or "", speaker=speaker) for *_, speaker, content, _ in rows]
        try:
            vectors = await self.embedder.embed(texts)
        except EmbedderError as error:
            return error.message
        filled = {
            "collections": [row[1] for row in rows],
            "items": [row[2] for row in rows],
            "vectors": [vector_text(vector) for vector in vectors],
        }
        await connection.execute(FILL, filled)
        return None

    async def _index(self, connection: Connection, rows: list[Row]) -> None:
        texts = [
            Text(Place(collection, scope), item, speaker, content or "", said_at, language_of(content or ""))
            for _, collection, item, scope, speaker, content, said_at in {
                row[2]: row for row in rows
            }.values()
        ]
        parameters = {**indexed(texts), "ids": [text.key for text in texts]}
        await connection.execute(INDEX.encode(), parameters)
