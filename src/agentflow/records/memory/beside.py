"""What lies beside a turn, whatever is asked: documents for its user, role and thread, and pinned memories."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from agentflow.protocols import DOCUMENTS, Beside, Owner, Scope
from agentflow.records.connections import Connections
from agentflow.turn import Recollection

MOST_PINNED = 20

# A user's own set of a collection that the role reads is searched anyway.
SCOPES = """
select c.name, s.user_ref, s.role_name, s.thread_id::text
from scope s join collection c on c.id = s.collection_id
where s.tenant = %(tenant)s and c.name = any(%(collections)s::text[]) and s.n_docs > 0
  and (s.user_ref is null or s.user_ref = %(user)s)
  and (s.role_name is null or s.role_name = %(role)s) and (s.thread_id is null or s.thread_id = %(thread)s)
  and not (c.name <> %(documents)s and s.user_ref is not null and s.role_name is null and s.thread_id is null)
order by s.id
"""
PINNED = """
select m.id, c.name, m.speaker, m.said_at, m.content, m.thread_id, m.session_id
from scope s join memory m on m.scope_id = s.id and m.collection_id = s.collection_id
     join collection c on c.id = s.collection_id
where s.tenant = %(tenant)s and s.user_ref = %(user)s and s.role_name is null and s.thread_id is null
  and c.name = any(%(collections)s::text[]) and m.pinned and not m.hidden
order by m.id limit %(most)s
"""


async def beside(
    connections: Connections,
    owner: Owner,
    *,
    role: str | None,
    thread: str | None,
    collections: Sequence[str],
) -> Beside:
    """See MemoryHome.beside."""
    parameters = {
        "tenant": owner.tenant,
        "user": owner.user,
        "role": role,
        "thread": thread,
        "collections": [*collections, DOCUMENTS],
        "documents": DOCUMENTS,
        "most": MOST_PINNED,
    }
    async with connections.use(owner) as connection, connection.together():
        reads = await connection.execute(SCOPES, parameters)
        pins = await connection.execute(PINNED, parameters)
        scopes, pinned = await reads.fetchall(), await pins.fetchall()
    return Beside(
        [Scope(owner.tenant, name, user, role, thread) for name, user, role, thread in scopes],
        [{**recollection(*row), "pinned": True} for row in pinned],
    )


def recollection(
    item: int,
    collection: str,
    speaker: str,
    said_at: datetime,
    content: str,
    thread: UUID | None,
    session: int,
) -> Recollection:
    """A memory that was not searched for: without a score."""
    return {
        "id": item,
        "collection": collection,
        "speaker": speaker,
        "said_at": said_at.astimezone(UTC).isoformat(timespec="seconds"),
        "content": content,
        "score": 0.0,
        "thread_id": str(thread) if thread else None,
        "session": session,
    }
