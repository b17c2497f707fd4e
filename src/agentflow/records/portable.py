"""Memories to take along: one JSON object per line, out and in.

Importing is idempotent, by what each memory came from, and goes on where it broke off: every batch is a transaction,
and a session found half imported is continued. Vectors are not taken along; they are owed again. Chunks of documents
are not memories of their own: add their files instead.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Literal
from uuid import NAMESPACE_OID, UUID, uuid5

from psycopg.types.json import Jsonb
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from agentflow.errors import BadInput
from agentflow.protocols import NewMemory
from agentflow.records.connections import Connection, Connections
from agentflow.records.memories import ADD, KINDS, SESSION, written
from agentflow.records.rights import Owner, take_out
from agentflow.records.scopes import Place, Scopes
from agentflow.turn import Json

BATCH = 256
LONGEST = 64 * 1024  # bytes of a line

EXPORTED = """
select m.id, c.name, m.kind, m.speaker, m.said_at, m.content, m.session_id, m.seq, m.trust, m.role_name, m.thread_id,
       m.source_message, m.chunk_no, m.pinned, m.hidden, m.expires_at, m.history,
       array(select coalesce(o.source_message::text, 'memory:' || o.id) || '/' || o.chunk_no
             from link l join memory o on o.id = l.source_id where l.item_id = m.id order by o.id)
from memory m join scope s on s.id = m.scope_id join collection c on c.id = m.collection_id
where s.tenant = %(tenant)s and s.user_ref = %(user)s and m.kind <> 2 and m.id > %(after)s
  and (%(collection)s::text is null or c.name = %(collection)s)
order by m.id limit %(limit)s
"""
KNOWN = """
select source_message, chunk_no, session_id from memory
where collection_id = %(collection)s and scope_id = %(scope)s and source_message = any(%(sources)s::uuid[])
"""
MARKS = """
update memory m set pinned = u.pinned, hidden = u.hidden, expires_at = u.expires, history = u.history
from unnest(%(ids)s::bigint[], %(pinned)s::bool[], %(hidden)s::bool[], %(expires)s::timestamptz[],
            %(histories)s::jsonb[]) u(id, pinned, hidden, expires, history)
where m.collection_id = %(collection)s and m.id = u.id
"""
LINKS = """
insert into link (tenant, item_id, source_id)
select %(tenant)s, u.item, m.id from unnest(%(items)s::bigint[], %(sources)s::uuid[], %(pieces)s::int[])
  u(item, source, piece) join memory m on m.source_message = u.source and m.chunk_no = u.piece
  join scope s on s.id = m.scope_id and s.tenant = %(tenant)s and s.user_ref = %(user)s
on conflict do nothing
"""
BAGS = """
select collection_id, id, scope_id, bow from memory where collection_id = %(collection)s and id = any(%(ids)s::bigint[])
"""


class Former(BaseModel):
    """An earlier wording."""

    model_config = ConfigDict(extra="forbid")

    content: str = Field(max_length=20_000)
    until: str = Field(max_length=40)


class Line(BaseModel):
    """One memory as it travels. `uid` is what it came from; the same one is imported once."""

    model_config = ConfigDict(extra="forbid")

    uid: str | None = Field(None, max_length=100)
    collection: str = "conversations"
    kind: Literal["turn", "fact", "summary"] = "turn"
    speaker: str = Field(max_length=200)
    said_at: AwareDatetime | None = None
    content: str = Field(min_length=1, max_length=20_000, pattern=r"^[^\x00]*$")
    session: str | int = 0
    place: int = Field(0, ge=0, lt=1 << 20)
    trust: Literal[1, 2, 3, 4, 5, 6] | None = None
    role: str | None = None
    thread_id: UUID | None = None
    pinned: bool = False
    hidden: bool = False
    expires_at: AwareDatetime | None = None
    history: list[Former] = Field(default_factory=list)
    sources: list[str] = Field(default_factory=list)

    def sources_for(self, owner: Owner) -> tuple[tuple[UUID, int], tuple[UUID, int]]:
        """What it came from, as its writer's turns have it and as this owner's import does: message and piece."""
        return _sources(self.uid or f"{self.speaker}\x1f{self.said_at}\x1f{self.content}", owner)


@dataclass(frozen=True)
class Portable:
    """Export and import of a user's memories. Raises DatabaseDown, SchemaMismatch."""

    connections: Connections
    scopes: Scopes

    async def export(self, owner: Owner, collection: str | None = None) -> AsyncIterator[Json]:
        """The user's own memories, oldest first, as they were when each batch was read."""
        after = 0
        while True:
            parameters = {**owner.named, "collection": collection, "after": after, "limit": BATCH}
            async with self.connections.use(owner.seen) as connection:
                rows = await (await connection.execute(EXPORTED, parameters)).fetchall()
            for row in rows:
                yield _line(row)
            if len(rows) < BATCH:
                return
            after = rows[-1][0]

    async def take(self, owner: Owner, lines: AsyncIterator[bytes]) -> Json:
        """Import lines; returns how many were new, and how many were there. Raises BadInput with the line's number.

        What came before a bad line is kept; send the file again when it is mended.
        """
        counts = {"imported": 0, "known": 0}
        sessions: dict[tuple[str, str | int], int] = {}
        batch: list[Line] = []
        number = 0
        async for text in lines:
            number += 1
            if text.strip():
                batch.append(parsed(text, number))
            if len(batch) >= BATCH:
                await self._write(owner, batch, sessions, counts)
                batch = []
        if batch:
            await self._write(owner, batch, sessions, counts)
        return {**counts, "lines": number}

    async def _write(
        self,
        owner: Owner,
        lines: Sequence[Line],
        sessions: dict[tuple[str, str | int], int],
        counts: dict[str, int],
    ) -> None:
        stretches: dict[tuple[str, str | int], list[Line]] = {}
        for line in lines:
            stretches.setdefault((line.collection, line.session), []).append(line)
        names = sorted({name for name, _ in stretches})
        # Before a connection is held: who holds one and waits for another would wait for ever among its like.
        places = {name: await self.scopes.find(owner.tenant, name, owner.user) for name in names}
        async with self.connections.use(owner.seen) as connection, connection.transaction():
            for key, stretch in stretches.items():
                new = await self._stretch(connection, owner, places[key[0]], key, stretch, sessions)
                counts["imported"] += new
                counts["known"] += len(stretch) - new

    async def _stretch(
        self,
        connection: Connection,
        owner: Owner,
        place: Place,
        key: tuple[str, str | int],
        lines: Sequence[Line],
        sessions: dict[tuple[str, str | int], int],
    ) -> int:
        """Lines of one session in one collection; returns how many were new."""
        name = key[0]
        sources = [one for line in lines for one in line.sources_for(owner)]
        named = {
            "collection": place.collection_id,
            "scope": place.scope_id,
            "sources": [one for one, _ in sources],
        }
        rows = await (await connection.execute(KNOWN, named)).fetchall()
        known = {(source, piece) for source, piece, _ in rows}
        new = [line for line in lines if known.isdisjoint(line.sources_for(owner))]
        if key not in sessions:
            begun = rows[:1] or await (await connection.execute(SESSION)).fetchall()
            sessions[key] = int(begun[0][-1])
        parameters = written(
            [_memory(line) for line in new],
            {name: place},
            {name: self.scopes.language(name)},
            [line.sources_for(owner)[1][0] for line in new],
        )
        given = {"tenant": owner.tenant, "session": sessions[key], "first": 0, "role": None, "adapter": None}
        cursor = await connection.execute(ADD.encode(), {**parameters, **given})
        ids = {(source, piece): number for source, number, piece in await cursor.fetchall()}
        await self._mark(
            connection, owner, place, [(ids.get(line.sources_for(owner)[1]), line) for line in new]
        )
        return len(ids)

    async def _mark(
        self, connection: Connection, owner: Owner, place: Place, lines: Sequence[tuple[int | None, Line]]
    ) -> None:
        """Pins, hiding, expiry, history and links of the new ones."""
        new = [(number, line) for number, line in lines if number is not None]
        marks = {
            "collection": place.collection_id,
            "ids": [number for number, _ in new],
            "pinned": [line.pinned for _, line in new],
            "hidden": [line.hidden for _, line in new],
            "expires": [line.expires_at for _, line in new],
            "histories": [Jsonb([one.model_dump() for one in line.history]) for _, line in new],
        }
        await connection.execute(MARKS, marks)
        hidden = [number for number, line in new if line.hidden]
        if hidden:
            cursor = await connection.execute(BAGS, {"collection": place.collection_id, "ids": hidden})
            await take_out(connection, await cursor.fetchall())
        links = [
            (number, *source)
            for number, line in new
            for uid in line.sources
            for source in _sources(uid, owner)
        ]
        named = {
            **owner.named,
            "items": [item for item, _, _ in links],
            "sources": [source for _, source, _ in links],
            "pieces": [piece for _, _, piece in links],
        }
        await connection.execute(LINKS, named)


def parsed(text: bytes, number: int) -> Line:
    """Raises BadInput with the line's number."""
    if len(text) > LONGEST:
        raise BadInput(f"Line {number} has {len(text)} bytes; a memory has {LONGEST} at most.", field="line")
    try:
        return Line.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise BadInput(f"Line {number}: {where}: {first['msg']}.", field="line", value=number) from error


def _memory(line: Line) -> NewMemory:
    return NewMemory(
        line.collection,
        line.place,
        line.speaker,
        line.content,
        piece=_piece(line.uid),
        said_at=line.said_at,
        kind=line.kind,
        trust=line.trust,
        cited={"imported": True},
    )


def _sources(uid: str, owner: Owner) -> tuple[tuple[UUID, int], tuple[UUID, int]]:
    """Others may have imported the same line: theirs and ours are two memories."""
    head = uid.partition("/")[0]
    try:
        original = UUID(head)
    except ValueError:
        original = uuid5(NAMESPACE_OID, head)
    return (original, _piece(uid)), (uuid5(original, f"{owner.tenant}/{owner.user}"), _piece(uid))


def _piece(uid: str | None) -> int:
    piece = (uid or "").rpartition("/")[2]
    return int(piece) if piece.isdecimal() and len(piece) < 7 else 0


def _line(row: Any) -> Json:
    number, collection, kind, speaker, said_at, content, session, seq, trust, role, thread, *rest = row
    source, piece, pinned, hidden, expires_at, history, sources = rest
    told: Json = {
        "uid": f"{source or f'memory:{number}'}/{piece}",
        "collection": collection,
        "kind": KINDS[kind],
        "speaker": speaker,
        "said_at": said_at.astimezone(UTC).isoformat(),
        "content": content,
        "session": session,
        "place": seq,
        "trust": trust,
        "role": role,
        "thread_id": str(thread) if thread else None,
        "pinned": pinned,
        "hidden": hidden,
        "expires_at": expires_at.astimezone(UTC).isoformat() if expires_at else None,
        "history": history,
        "sources": sources,
    }
    return {key: value for key, value in told.items() if value not in (None, False, [])}


def as_line(told: Json) -> bytes:
    """A memory as one line of JSON."""
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"
