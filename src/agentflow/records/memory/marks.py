"""What an owner has done to memories, put on those that were just brought along: pins, hiding, expiry, wordings."""

from collections.abc import Sequence

from psycopg.types.json import Jsonb

from agentflow.records.connections import Connection
from agentflow.records.memory.lines import Marks
from agentflow.records.memory.postings import take_out

MARK = """
update memory m set pinned = u.pinned, hidden = u.hidden, expires_at = u.expires, history = u.history
from unnest(%(ids)s::bigint[], %(pinned)s::bool[], %(hidden)s::bool[], %(expires)s::timestamptz[],
            %(histories)s::jsonb[]) u(id, pinned, hidden, expires, history)
where m.collection_id = %(collection)s and m.id = u.id
"""
BAGS = """
select collection_id, id, scope_id, bow from memory where collection_id = %(collection)s and id = any(%(ids)s::bigint[])
"""


async def mark(connection: Connection, collection: int, marked: Sequence[tuple[int, Marks]]) -> None:
    """Mark new memories of a collection, by number; those without any mark cost nothing."""
    chosen = [(number, one) for number, one in marked if one.marked]
    if not chosen:
        return
    marks = {
        "collection": collection,
        "ids": [number for number, _ in chosen],
        "pinned": [one.pinned for _, one in chosen],
        "hidden": [one.hidden for _, one in chosen],
        "expires": [one.expires_at for _, one in chosen],
        "histories": [Jsonb([former.model_dump() for former in one.history]) for _, one in chosen],
    }
    await connection.execute(MARK, marks)
    hidden = [number for number, one in chosen if one.hidden]
    if hidden:
        rows = await connection.execute(BAGS, {"collection": collection, "ids": hidden})
        await take_out(connection, await rows.fetchall())
