"""Memories and documents to take along and to bring: lines of JSON, out and in.

Importing is idempotent, by what each memory came from, and goes on where it broke off: every batch is a transaction,
and a session found half imported is continued. A document is a transaction of its own: it replaces an older one of its
name, as its file would. Vectors are not taken along; they are owed again.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentflow.errors import BadInput, Forbidden
from agentflow.protocols import Scope
from agentflow.records.connections import Connection, Connections
from agentflow.records.memory.library import Library
from agentflow.records.memory.lines import (
    SESSIONS,
    ChunkLine,
    DocumentLine,
    Line,
    Whole,
    chunk_line,
    document_line,
    memory_line,
    parsed,
    sources,
)
from agentflow.records.memory.marks import mark
from agentflow.records.memory.rights import Owner
from agentflow.records.memory.scopes import Place, Scopes
from agentflow.records.memory.writing import ADD, written
from agentflow.turn import Json

BATCH = 256

# What was imported keeps the name of what it came from, so that it travels on under it.
EXPORTED = """
select m.id, c.name, m.kind, m.speaker, m.said_at, m.content, m.session_id, m.seq, m.trust, m.role_name, m.thread_id,
       coalesce(nullif(m.meta ->> 'imported', 'true'), m.source_message::text), m.chunk_no, m.pinned, m.hidden,
       m.expires_at, m.history, s.role_name, s.thread_id,
       array(select coalesce(nullif(o.meta ->> 'imported', 'true'), o.source_message::text, 'memory:' || o.id)
                    || '/' || o.chunk_no
             from link l join memory o on o.id = l.source_id where l.item_id = m.id order by o.id)
from memory m join scope s on s.id = m.scope_id join collection c on c.id = m.collection_id
where s.tenant = %(tenant)s and s.user_ref = %(user)s and m.kind <> 2 and m.id > %(after)s
  and (%(collection)s::text is null or c.name = %(collection)s)
order by m.id limit %(limit)s
"""
DOCUMENTS = """
select d.id, d.collection_id, d.name, c.name, d.media_type, encode(d.digest, 'hex'), d.bytes, d.chunks, d.updated_at,
       s.user_ref is null, s.role_name, s.thread_id
from document d join scope s on s.id = d.scope_id join collection c on c.id = d.collection_id
where s.tenant = %(tenant)s and (s.user_ref = %(user)s or s.user_ref is null and %(shared)s) and d.id > %(after)s
  and (%(collection)s::text is null or c.name = %(collection)s)
order by d.id limit %(limit)s
"""
CHUNKS = """
select id, seq, content, said_at, meta, pinned, hidden, expires_at, history from memory
where document_id = %(document)s and collection_id = %(collection)s and (seq, id) > (%(seq)s, %(after)s)
order by seq, id limit %(limit)s
"""
KNOWN = """
select source_message, chunk_no, session_id from memory
where collection_id = %(collection)s and scope_id = %(scope)s and source_message = any(%(sources)s::uuid[])
"""
# A session keeps its number where nothing else has it, and none that is handed out later.
SESSION = """
select case when %(wanted)s <= (select last_value from session_seq where is_called)
             and not exists (select from memory where collection_id = %(collection)s and scope_id = %(scope)s
                               and session_id = %(wanted)s)
             and not exists (select from thread where tenant = %(tenant)s and user_ref = %(user)s
                               and session_id = %(wanted)s)
            then %(wanted)s else nextval('session_seq') end
"""
ORIGINS = """
update memory m set role_name = u.role, thread_id = u.thread
from unnest(%(ids)s::bigint[], %(roles)s::text[], %(threads)s::uuid[]) u(id, role, thread)
where m.collection_id = %(collection)s and m.id = u.id
"""
LINKS = """
insert into link (tenant, item_id, source_id)
select %(tenant)s, u.item, m.id from unnest(%(items)s::bigint[], %(sources)s::uuid[], %(pieces)s::int[])
  u(item, source, piece) join memory m on m.source_message = u.source and m.chunk_no = u.piece
  join scope s on s.id = m.scope_id and s.tenant = %(tenant)s and s.user_ref = %(user)s
on conflict do nothing
"""
# A session that came with its summary is summed up.
SUMMED = """
update memory m set meta = m.meta || jsonb_build_object('of', (
  select min(o.session_id)::text from link l join memory o on o.id = l.source_id where l.item_id = m.id))
where m.collection_id = %(collection)s and m.id = any(%(ids)s::bigint[])
  and exists (select from link l where l.item_id = m.id)
"""
Stretch = tuple[Scope, str | int]
"""One session of a set."""


@dataclass
class Arrival:
    """An import on its way: what has been read and not been written, and what was counted."""

    memories: list[Line] = field(default_factory=list)
    document: Whole | None = None
    sessions: dict[Stretch, int] = field(default_factory=dict)
    places: dict[Stretch, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"imported": 0, "known": 0, "documents": 0})

    def placed(self, key: Stretch, lines: Sequence[Line]) -> list[tuple[int, Line]]:
        """Lines of a session with their places; one that names none follows the one before."""
        found = []
        for line in lines:
            self.places[key] = self.places.get(key, -1) + 1 if line.place is None else line.place
            found.append((self.places[key], line))
        return found


@dataclass(frozen=True)
class Portable:
    """Export and import of a user's memories and documents. Raises DatabaseDown."""

    connections: Connections
    scopes: Scopes

    async def export(self, owner: Owner, collection: str | None = None) -> AsyncIterator[Json]:
        """The user's own memories, oldest first, then documents; as they were when each batch was read.

        Everybody's documents come along for an owner who may change them.
        """
        given = {**owner.named, "collection": collection}
        async for row in self._rows(owner, EXPORTED, given):
            yield memory_line(row)
        async for document in self._rows(owner, DOCUMENTS, given):
            yield document_line(document)
            number, collection_id, name, *_ = document
            of = {"document": number, "collection": collection_id, "seq": -1}
            async for row in self._rows(owner, CHUNKS, of):
                yield chunk_line(name, row)

    async def take(self, owner: Owner, lines: AsyncIterator[bytes]) -> Json:
        """Import lines; returns how many were new, and how many were there. Raises BadInput with the line's number.

        What came before a bad line is kept; send the file again when it is mended.
        """
        arrival, number = Arrival(), 0
        async for text in lines:
            number += 1
            if text.strip():
                await self._read(owner, arrival, parsed(text, number), number)
        await self._write(owner, arrival)
        await self._shelve(owner, arrival)
        return {**arrival.counts, "lines": number}

    async def _rows(self, owner: Owner, statement: str, given: Json) -> AsyncIterator[Any]:
        """Batch after batch of rows that begin with their number, and those of CHUNKS with their place."""
        after = {"after": 0, "limit": BATCH}
        while True:
            async with self.connections.use(owner.seen) as connection:
                rows = await (await connection.execute(statement, {**given, **after})).fetchall()
            for row in rows:
                yield row
            if len(rows) < BATCH:
                return
            after |= {"after": rows[-1][0], "seq": rows[-1][1]}

    async def _read(
        self, owner: Owner, arrival: Arrival, line: Line | DocumentLine | ChunkLine, number: int
    ) -> None:
        """Gather what is written together: a batch of memories, or a document with its chunks."""
        if isinstance(line, ChunkLine):
            if arrival.document is None or arrival.document.document.name != line.document:
                raise BadInput(
                    f"Line {number}: document: the line of kind document that names {line.document!r} is missing "
                    "before its chunks.",
                    field="line",
                    value=number,
                )
            arrival.document.chunks.append(line)
            return
        await self._shelve(owner, arrival)
        if isinstance(line, DocumentLine):
            if line.everybody and not owner.shared:
                raise Forbidden(
                    f"Line {number}: {line.name!r} is everybody's; only a key with the scope `admin` brings it.",
                    field="everybody",
                )
            arrival.document = Whole(line, [])
            return
        arrival.memories.append(line)
        if len(arrival.memories) >= BATCH:
            await self._write(owner, arrival)

    async def _shelve(self, owner: Owner, arrival: Arrival) -> None:
        """Write the document that has come to its end."""
        whole, arrival.document = arrival.document, None
        if whole is None:
            return
        counts = await Library(self.connections, self.scopes).bring(_set(owner, whole.document), whole)
        arrival.counts["imported"] += counts["new"]
        arrival.counts["known"] += counts["kept"]
        arrival.counts["documents"] += bool(counts["new"] or counts["removed"])

    async def _write(self, owner: Owner, arrival: Arrival) -> None:
        """Write the memories that were gathered."""
        lines, arrival.memories = arrival.memories, []
        stretches: dict[Stretch, list[Line]] = {}
        for line in lines:
            stretches.setdefault((_set(owner, line), line.session), []).append(line)
        # Before a connection is held: who holds one and waits for another would wait for ever among its like.
        places = {
            scope: await self.scopes.anew(scope) for scope in dict.fromkeys(scope for scope, _ in stretches)
        }
        async with self.connections.use(owner.seen) as connection, connection.transaction():
            for key, stretch in stretches.items():
                new = await self._stretch(connection, owner, places[key[0]], key, stretch, arrival)
                arrival.counts["imported"] += new
                arrival.counts["known"] += len(stretch) - new

    async def _stretch(
        self,
        connection: Connection,
        owner: Owner,
        place: Place,
        key: Stretch,
        lines: Sequence[Line],
        arrival: Arrival,
    ) -> int:
        """Lines of one session in one set; returns how many were new."""
        at = {"collection": place.collection_id, "scope": place.scope_id}
        asked = {**at, "sources": [source for line in lines for source, _ in line.sources_for(owner)]}
        rows = await (await connection.execute(KNOWN, asked)).fetchall()
        known = {(source, piece) for source, piece, _ in rows}
        if key not in arrival.sessions:
            wanted = {**owner.named, **at, "wanted": key[1] if isinstance(key[1], int) else SESSIONS}
            begun = rows[:1] or await (await connection.execute(SESSION, wanted)).fetchall()
            arrival.sessions[key] = int(begun[0][-1])
        placed = arrival.placed(key, lines)
        new = [(seq, line) for seq, line in placed if known.isdisjoint(line.sources_for(owner))]
        given = {"tenant": owner.tenant, "session": arrival.sessions[key], "first": 0}
        added = 0
        for apart in _apart(new):
            added += await self._add(connection, owner, place, given, apart)
        return added

    async def _add(
        self, connection: Connection, owner: Owner, place: Place, given: Json, new: Sequence[tuple[int, Line]]
    ) -> int:
        """Write lines at places of their own; returns how many."""
        name = new[0][1].collection
        parameters = written(
            [line.memory(owner, seq) for seq, line in new],
            {name: place},
            {name: self.scopes.language(name)},
            [line.sources_for(owner)[1][0] for _, line in new],
        )
        parameters |= {**given, "role": None, "adapter": None}
        cursor = await connection.execute(ADD.encode(), parameters)
        ids = {(source, piece): number for source, number, piece in await cursor.fetchall()}
        found = ((ids.get(line.sources_for(owner)[1]), line) for _, line in new)
        written_now = [(number, line) for number, line in found if number is not None]
        await _complete(connection, owner, place, written_now)
        return len(ids)


def _apart(new: Sequence[tuple[int, Line]]) -> list[list[tuple[int, Line]]]:
    """Lines that share a place in different groups: one statement tells its memories apart by their places."""
    groups: list[dict[int, Line]] = []
    for seq, line in new:
        free = next((group for group in groups if seq not in group), None)
        if free is None:
            groups.append(free := {})
        free[seq] = line
    return [list(group.items()) for group in groups]


async def _complete(
    connection: Connection, owner: Owner, place: Place, new: Sequence[tuple[int, Line]]
) -> None:
    """Origins, marks and sources of new memories."""
    origins = {
        "collection": place.collection_id,
        "ids": [number for number, _ in new],
        "roles": [line.role for _, line in new],
        "threads": [line.thread_id for _, line in new],
    }
    await connection.execute(ORIGINS, origins)
    await mark(connection, place.collection_id, new)
    links = [
        (number, *source) for number, line in new for uid in line.sources for source in sources(uid, owner)
    ]
    if links:
        items, made_of, pieces = (list(column) for column in zip(*links, strict=True))
        await connection.execute(LINKS, {**owner.named, "items": items, "sources": made_of, "pieces": pieces})
        await connection.execute(SUMMED, {"collection": place.collection_id, "ids": items})


def _set(owner: Owner, line: Line | DocumentLine) -> Scope:
    user = None if isinstance(line, DocumentLine) and line.everybody else owner.user
    thread = str(line.only_thread) if line.only_thread else None
    return Scope(owner.tenant, line.collection, user, line.only_role, thread)
