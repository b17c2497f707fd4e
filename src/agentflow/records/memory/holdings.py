"""How much is remembered: items and bytes by collection, vectors owed, the oldest; and the sizes of tables."""

from dataclasses import dataclass
from datetime import UTC
from typing import Any

from agentflow import protocols
from agentflow.records.connections import Connections
from agentflow.records.memory.rights import Owner
from agentflow.turn import Json

COLLECTIONS = """
select c.name, c.backend, count(*), count(*) filter (where m.kind = 1), count(*) filter (where m.kind = 2),
       count(*) filter (where m.kind = 4), count(*) filter (where m.pinned), count(*) filter (where m.hidden),
       count(*) filter (where m.expires_at is not null),
       count(*) filter (where m.embedding is null and m.bow is not null),
       coalesce(sum(pg_column_size(m.*)), 0), min(m.said_at), max(m.said_at), count(distinct m.document_id)
from memory m join scope s on s.id = m.scope_id join collection c on c.id = m.collection_id
where s.tenant = %(tenant)s and (%(shared)s or s.user_ref = %(user)s)
group by c.name, c.backend order by c.name
"""
OWED = """
select count(*), coalesce(extract(epoch from now() - min(created_at)), 0)::float8,
       count(*) filter (where attempts > 0), max(last_error)
from outbox where kind = 'embed'
"""
TABLES = """
select n.nspname || '.' || coalesce(p.relname, c.relname), sum(pg_total_relation_size(c.oid))::bigint
from pg_class c join pg_namespace n on n.oid = c.relnamespace
     left join pg_inherits i on i.inhrelid = c.oid left join pg_class p on p.oid = i.inhparent
where n.nspname in ('agentflow', 'langgraph') and c.relkind = 'r'
group by 1 having sum(pg_total_relation_size(c.oid)) > 65536 order by 2 desc
"""


@dataclass(frozen=True)
class Holdings:
    """Counts for an owner; with `shared` for the whole tenant, and the sizes of tables. Raises DatabaseDown."""

    connections: Connections

    async def now(self, owner: Owner) -> Json:
        """By collection; `owed` vectors are those that the embedder has not made yet."""
        seen = protocols.Owner(owner.tenant) if owner.shared else owner.seen
        async with self.connections.use(seen) as connection:
            rows = await (await connection.execute(COLLECTIONS, owner.named)).fetchall()
            owed = await (await connection.execute(OWED)).fetchone()
            sizes = await (await connection.execute(TABLES)).fetchall() if owner.shared else []
        count, age, tried, error = owed or (0, 0.0, 0, None)
        return {
            "of": "tenant" if owner.shared else "user",
            "collections": [_collection(row) for row in rows],
            "owed": {"vectors": count, "oldest_seconds": round(age, 1), "tried": tried, "last_error": error},
            "tables": [{"table": name, "bytes": size} for name, size in sizes],
        }


def _collection(row: Any) -> Json:
    (
        name,
        backend,
        items,
        turns,
        chunks,
        summaries,
        pinned,
        hidden,
        expiring,
        owed,
        size,
        oldest,
        newest,
        documents,
    ) = row
    return {
        "collection": name,
        "backend": backend,
        "memories": items,
        "turns": turns,
        "chunks": chunks,
        "summaries": summaries,
        "documents": documents,
        "pinned": pinned,
        "hidden": hidden,
        "expiring": expiring,
        "owed": owed,
        "bytes": int(size),
        "oldest": oldest.astimezone(UTC).isoformat(timespec="seconds"),
        "newest": newest.astimezone(UTC).isoformat(timespec="seconds"),
    }
