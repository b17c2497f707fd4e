"""The outbox: vectors that a finished turn still owes its memories."""

from dataclasses import dataclass

from agentflow.errors import EmbedderError
from agentflow.protocols import Embedder
from agentflow.records.connections import Connection, Connections, vector_text

DUE = """
select o.id, o.collection_id, o.item_id, m.content
from outbox o left join memory m on m.collection_id = o.collection_id and m.id = o.item_id
where o.kind = 'embed' and o.not_before <= now()
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


@dataclass(frozen=True)
class Outbox:
    """Drained by any process; a row is sent exactly once, or again after an error with growing pauses."""

    connections: Connections
    embedder: Embedder

    async def drain(self, *, limit: int = 64) -> int:
        """Embed one batch and return its size. Raises DatabaseDown; the embedder's errors are kept in the rows."""
        async with self.connections.use() as connection, connection.transaction():
            cursor = await connection.execute(DUE, {"limit": limit})
            rows = await cursor.fetchall()
            if rows:
                await self._send(connection, rows)
            return len(rows)

    async def waiting(self) -> tuple[int, float]:
        """How many vectors are owed, and the age of the oldest in seconds."""
        async with self.connections.use() as connection:
            row = await (await connection.execute(WAITING)).fetchone()
        return (int(row[0]), float(row[1])) if row else (0, 0.0)

    async def _send(self, connection: Connection, rows: list[tuple[int, int, int, str | None]]) -> None:
        ids = {"ids": [row[0] for row in rows]}
        living = [(row[1], row[2], row[3]) for row in rows if row[3] is not None]
        try:
            vectors = await self.embedder.embed([content for _, _, content in living])
        except EmbedderError as error:
            await connection.execute(LATER, {**ids, "error": error.message})
            return
        filled = {
            "collections": [collection for collection, _, _ in living],
            "items": [item for _, item, _ in living],
            "vectors": [vector_text(vector) for vector in vectors],
        }
        await connection.execute(FILL, filled)
        await connection.execute(SENT, ids)
