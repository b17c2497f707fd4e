"""A user's memories in the user's hands: list, show, edit, pin, hide, let expire.

A user sees what is the user's own and what is everybody's in the tenant; anything else does not exist here.
Everybody's (documents without an owner) is changed only with `shared`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from agentflow import protocols
from agentflow.errors import BadInput, NotFound
from agentflow.protocols import Scope
from agentflow.records.connections import Connection, Connections
from agentflow.records.memory.postings import take_out
from agentflow.records.memory.scopes import Place, Scopes
from agentflow.records.memory.writing import INDEX, KINDS, Text, indexed
from agentflow.retrieval.pieces import PIECE_TOKENS, tokens
from agentflow.retrieval.terms import language_of
from agentflow.turn import Json

MOST = 500  # listed at once

OWNED = """
from memory m join scope s on s.id = m.scope_id and s.tenant = %(tenant)s
     join collection c on c.id = m.collection_id left join document d on d.id = m.document_id
where (s.user_ref = %(user)s or s.user_ref is null)
"""
COLUMNS = """
m.id, c.name, m.kind, m.speaker, m.said_at, m.content, m.session_id, m.seq, m.trust, m.lang, m.role_name, m.thread_id,
d.name, m.meta, m.pinned, m.hidden, m.expires_at, m.embedding is not null, m.history, s.user_ref is null,
s.role_name
"""
LISTED = f"""
select {COLUMNS} {OWNED}
  and (%(collection)s::text is null or c.name = %(collection)s)
  and (%(kind)s::int is null or m.kind = %(kind)s)
  and (%(role)s::text is null or coalesce(s.role_name, m.role_name) = %(role)s)
  and (%(thread)s::uuid is null or m.thread_id = %(thread)s)
  and (%(document)s::bigint is null or m.document_id = %(document)s)
  and (%(pinned)s::bool is null or m.pinned = %(pinned)s)
  and (%(text)s::text is null or position(lower(%(text)s) in lower(m.content)) > 0)
  and (%(before)s::bigint is null or m.id < %(before)s)
order by m.id desc limit %(limit)s
"""
SETS = """
select c.name, s.user_ref, s.role_name, s.thread_id::text from scope s join collection c on c.id = s.collection_id
where s.tenant = %(tenant)s and (s.user_ref = %(user)s or s.user_ref is null) and s.n_docs > 0
  and c.name = any(%(collections)s::text[])
order by s.id
"""
SHOWN = f"select {COLUMNS} {OWNED} and m.id = %(id)s"
SOURCES = """
select l.source_id from link l where l.item_id = %(id)s order by l.source_id
"""
LOCK = f"""
select m.collection_id, m.id, m.scope_id, m.bow, m.speaker, m.content, m.said_at, m.lang, c.name
{OWNED} and m.id = %(id)s and (s.user_ref is not null or %(shared)s) for update of m, s
"""
REWORDED = """
update memory set history = history || %(former)s::jsonb, content = %(content)s
where collection_id = %(collection)s and id = %(id)s
"""
MARKED = """
update memory set pinned = coalesce(%(pinned)s, pinned), hidden = coalesce(%(hidden)s, hidden),
                  expires_at = case when %(expires)s then %(expires_at)s else expires_at end
where collection_id = %(collection)s and id = %(id)s
"""
OWED = """
insert into outbox (tenant, kind, item_id, collection_id)
select tenant, 'embed', id, collection_id from memory where collection_id = %(collection)s and id = %(id)s
"""


@dataclass(frozen=True)
class Owner:
    """Whose memories; `shared`: what is everybody's may be changed too."""

    tenant: int
    user: str
    shared: bool = False

    @property
    def seen(self) -> protocols.Owner:
        return protocols.Owner(self.tenant, self.user)

    @property
    def named(self) -> Json:
        return {"tenant": self.tenant, "user": self.user, "shared": self.shared}


@dataclass(frozen=True)
class Filter:
    """Which memories to list; None: any. `text` is looked for as it stands, in any case; `before` is an id."""

    collection: str | None = None
    kind: Literal["turn", "chunk", "fact", "summary"] | None = None
    role: str | None = None
    thread: str | None = None
    document: int | None = None
    pinned: bool | None = None
    text: str | None = None
    before: int | None = None
    limit: int = 50


@dataclass(frozen=True)
class Change:
    """What to change of a memory; None: nothing. `expires` tells whether `expires_at` is meant (None: never)."""

    content: str | None = None
    pinned: bool | None = None
    hidden: bool | None = None
    expires: bool = False
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Rights:
    """The memory table as its owners see it. Raises DatabaseDown."""

    connections: Connections
    scopes: Scopes

    async def listed(self, owner: Owner, chosen: Filter) -> list[Json]:
        """Newest first, `chosen.limit` at most."""
        parameters = {
            **owner.named,
            "collection": chosen.collection,
            "kind": KINDS.index(chosen.kind) if chosen.kind else None,
            "role": chosen.role,
            "thread": chosen.thread,
            "document": chosen.document,
            "pinned": chosen.pinned,
            "text": chosen.text,
            "before": chosen.before,
            "limit": min(chosen.limit, MOST),
        }
        async with self.connections.use(owner.seen) as connection:
            cursor = await connection.execute(LISTED.encode(), parameters)
            return [_item(row) for row in await cursor.fetchall()]

    async def sets(self, owner: Owner, collections: Sequence[str]) -> list[Scope]:
        """All sets of the user's and of everybody's that hold anything."""
        async with self.connections.use(owner.seen) as connection:
            cursor = await connection.execute(SETS, {**owner.named, "collections": list(collections)})
            return [Scope(owner.tenant, *row) for row in await cursor.fetchall()]

    async def shown(self, owner: Owner, number: int) -> Json:
        """One memory with its earlier wordings and its sources. Raises NotFound."""
        async with self.connections.use(owner.seen) as connection:
            cursor = await connection.execute(SHOWN.encode(), {**owner.named, "id": number})
            row = await cursor.fetchone()
            if row is None:
                raise unknown(number)
            sources = await (await connection.execute(SOURCES, {"id": number})).fetchall()
        return {**_item(row), "history": row[18], "sources": [source for (source,) in sources]}

    async def change(self, owner: Owner, number: int, change: Change) -> Json:
        """Reword, pin, hide or let expire, in one transaction; returns the memory as it is then.

        A new wording is found by its words at once, and its vector is owed again; the former wording is kept in
        `history`. A hidden memory is in no index. Raises NotFound, BadInput.
        """
        if change.content is not None:
            checked(change.content)
        async with self.connections.use(owner.seen) as connection, connection.transaction():
            cursor = await connection.execute(LOCK.encode(), {**owner.named, "id": number})
            row = await cursor.fetchone()
            if row is None:
                raise unknown(number)
            await self._apply(connection, row, change)
        return await self.shown(owner, number)

    async def _apply(self, connection: Connection, row: Any, change: Change) -> None:
        collection, number, scope, bag, speaker, content, said_at, former_language, name = row
        at = {"collection": collection, "id": number}
        marks = {"pinned": change.pinned, "hidden": change.hidden}
        expiry = {"expires": change.expires, "expires_at": change.expires_at}
        await connection.execute(MARKED, {**at, **marks, **expiry})
        if change.content is None and change.hidden is None:
            return
        await take_out(connection, [(collection, number, scope, bag)])
        if change.content is not None and change.content != content:
            former = Jsonb([{"content": content, "until": datetime.now(UTC).isoformat(timespec="seconds")}])
            await connection.execute(REWORDED, {**at, "former": former, "content": change.content})
            content = change.content
        cursor = await connection.execute("select hidden from memory where id = %(id)s", {"id": number})
        hidden = await cursor.fetchone()
        if hidden and hidden[0]:
            return
        language = self.scopes.language(name)
        if language == "auto":
            language = language_of(content, former_language)
        text = Text(Place(collection, scope), number, speaker, content, said_at, language)
        await connection.execute(INDEX.encode(), {**indexed([text]), "ids": [number]})
        await connection.execute(OWED, at)


def checked(content: str) -> None:
    """Raises BadInput for a wording that cannot be kept."""
    if not content.strip() or "\x00" in content:
        raise BadInput("content is empty or holds a NUL character; write some words.", field="content")
    if tokens(content) > 2 * PIECE_TOKENS:
        raise BadInput(
            f"content has about {tokens(content)} tokens; one memory holds {2 * PIECE_TOKENS}. Say it shorter.",
            field="content",
        )


def unknown(number: int) -> NotFound:
    return NotFound(f"There is no memory {number} for this user.", field="id", value=number)


def _item(row: Any) -> Json:
    number, collection, kind, speaker, said_at, content, session, seq, trust, lang, role, thread, *rest = row
    document, meta, pinned, hidden, expires_at, embedded, history, shared, only_role = rest
    return {
        "id": number,
        "collection": collection,
        "kind": KINDS[kind],
        "speaker": speaker,
        "said_at": said_at.astimezone(UTC).isoformat(timespec="seconds"),
        "content": content,
        "session": session,
        "place": seq,
        "trust": trust,
        "language": lang,
        "role": role,
        "thread_id": str(thread) if thread else None,
        "document": document,
        "cited": meta if kind == KINDS.index("chunk") else None,
        "pinned": pinned,
        "hidden": hidden,
        "expires_at": expires_at.astimezone(UTC).isoformat(timespec="seconds") if expires_at else None,
        "embedded": embedded,
        "edited": bool(history),
        "shared": shared,
        "only_role": only_role,
    }
