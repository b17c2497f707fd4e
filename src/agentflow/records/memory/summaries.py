"""Sessions that are over and have no summary yet; and summaries: memories that point to what they were made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid5

from agentflow.protocols import NewMemory, Owner
from agentflow.records.connections import Connections
from agentflow.records.memory.scopes import Place, Scopes
from agentflow.records.memory.writing import ADD, SESSION, written

SUMMARY_SOURCES = UUID("6d5a9b6e-58f5-4c0a-8f5e-1f0c5b8e7a42")
TRUST = 5

DUE = """
select m.tenant, s.user_ref, c.name, m.collection_id, m.scope_id, m.session_id
from memory m join scope s on s.id = m.scope_id join collection c on c.id = m.collection_id
where m.kind = 1 and not m.hidden and s.user_ref is not null
  and not exists (select from memory o where o.collection_id = m.collection_id and o.scope_id = m.scope_id
                  and o.kind = 4 and o.meta ->> 'of' = m.session_id::text)
group by 1, 2, 3, 4, 5, 6
having count(*) >= %(least)s and max(m.said_at) < now() - %(pause)s * interval '1 second'
order by max(m.said_at) limit 1
"""
ITEMS = """
select id, speaker, said_at, content from memory
where collection_id = %(collection)s and scope_id = %(scope)s and session_id = %(session)s and kind = 1 and not hidden
order by seq
"""
# Only of sources that are still there: what was forgotten meanwhile is in no summary.
HELD = """
select count(*) from (select id from memory where collection_id = %(collection)s and id = any(%(ids)s::bigint[])
                      and not hidden for share) m
"""
LINK = """
insert into link (tenant, item_id, source_id)
select %(tenant)s, %(item)s, source from unnest(%(ids)s::bigint[]) source on conflict do nothing
"""


class Session(NamedTuple):
    """A stretch of conversation of a user."""

    tenant: int
    user: str
    collection: str
    collection_id: int
    scope_id: int
    session: int


class Said(NamedTuple):
    """One memory of a session."""

    id: int
    speaker: str
    said_at: datetime
    content: str


@dataclass(frozen=True)
class Summaries:
    """A session is over `pause` seconds after its last word, and worth a summary from `least` memories on."""

    connections: Connections
    scopes: Scopes
    pause: float
    least: int = 8

    async def due(self) -> Session | None:
        """The oldest session without a summary. Raises DatabaseDown."""
        async with self.connections.background() as connection:
            cursor = await connection.execute(DUE, {"least": self.least, "pause": self.pause})
            row = await cursor.fetchone()
        return None if row is None else Session(*row)

    async def said(self, session: Session) -> list[Said]:
        """What was said in it, in order."""
        parameters = {
            "collection": session.collection_id,
            "scope": session.scope_id,
            "session": session.session,
        }
        async with self.connections.use(Owner(session.tenant, session.user)) as connection:
            cursor = await connection.execute(ITEMS, parameters)
            return [Said(*row) for row in await cursor.fetchall()]

    async def write(self, session: Session, told: Sequence[tuple[str, Sequence[Said]]]) -> bool:
        """Keep summaries with what each was made from, all or none; False if some of that was forgotten meanwhile."""
        place = Place(session.collection_id, session.scope_id)
        sources = [
            uuid5(SUMMARY_SOURCES, f"{session.collection_id}/{said[0].id}/{said[-1].id}") for _, said in told
        ]
        memories = [_memory(session, number, text, said) for number, (text, said) in enumerate(told)]
        owner = Owner(session.tenant, session.user)
        every = [one.id for _, said in told for one in said]
        async with self.connections.use(owner) as connection, connection.transaction():
            held = await connection.execute(HELD, {"collection": session.collection_id, "ids": every})
            if await held.fetchone() != (len(every),):
                return False
            row = await (await connection.execute(SESSION)).fetchone()
            languages = {session.collection: self.scopes.language(session.collection)}
            parameters = written(memories, {session.collection: place}, languages, sources)
            given = {
                "tenant": session.tenant,
                "session": row[0] if row else 0,
                "first": 0,
                "role": None,
                "adapter": None,
            }
            cursor = await connection.execute(ADD.encode(), {**parameters, **given})
            ids = {source: item for source, item, _ in await cursor.fetchall()}
            for source, (_, said) in zip(sources, told, strict=True):
                links = {"tenant": session.tenant, "item": ids.get(source), "ids": [one.id for one in said]}
                if source in ids:
                    await connection.execute(LINK, links)
        return True


def _memory(session: Session, number: int, text: str, said: Sequence[Said]) -> NewMemory:
    return NewMemory(
        session.collection,
        number,
        "summary",
        text,
        said_at=said[-1].said_at,
        kind="summary",
        trust=TRUST,
        cited={"of": str(session.session)},
    )
