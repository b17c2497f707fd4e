"""Documents: their chunks are memories that are cited, in a set of a user, a role, a thread or everybody.

Adding a file again changes what changed: chunks that stay keep their numbers and vectors, the rest is replaced, in one
transaction. The file itself is not kept.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid5

from psycopg.types.json import Jsonb

from agentflow.documents.chunks import Chunk
from agentflow.protocols import NewMemory, Scope
from agentflow.records.connections import Connection, Connections
from agentflow.records.memory.forget import LIMITS, remove
from agentflow.records.memory.lines import Whole
from agentflow.records.memory.marks import mark
from agentflow.records.memory.rights import Owner
from agentflow.records.memory.scopes import Place, Scopes
from agentflow.records.memory.writing import ADD, written
from agentflow.turn import Json

CHUNK_SOURCES = UUID("b41b2d8e-2c0f-4d57-9b5a-0d3a1f6f8e11")
TRUST = 3
BATCH = 256

# Whoever adds the same file at the same time waits here.
HELD = """
insert into document (tenant, collection_id, scope_id, user_ref, name, media_type, digest, bytes)
values (%(tenant)s, %(collection)s, %(scope)s, %(user)s, %(name)s, %(media)s, '', 0)
on conflict (scope_id, name) do update set updated_at = now()
returning id, session_id
"""
PRESENT = """
select collection_id, id, scope_id, bow, sha256(convert_to(content, 'UTF8')), source_message, content, null::bigint,
       history, speaker
from memory where document_id = %(document)s and collection_id = %(collection)s
"""
MOVED = """
update memory m set seq = u.seq, meta = u.meta
from unnest(%(sources)s::uuid[], %(seqs)s::int[], %(metas)s::jsonb[]) u(source, seq, meta)
where m.collection_id = %(collection)s and m.document_id = %(document)s and m.source_message = u.source
"""
DONE = """
update document set digest = %(digest)s, bytes = %(bytes)s, media_type = %(media)s, chunks = %(chunks)s,
                    updated_at = coalesce(%(at)s, now())
where id = %(document)s
"""
STANDING = "select digest, updated_at, chunks from document where scope_id = %(scope)s and name = %(name)s for update"
LISTED = """
select d.id, d.name, c.name, d.media_type, d.bytes, d.chunks, s.user_ref is null, s.role_name, s.thread_id,
       d.created_at, d.updated_at,
       (select count(*) from memory m where m.document_id = d.id and m.embedding is null and not m.hidden)
from document d join scope s on s.id = d.scope_id join collection c on c.id = d.collection_id
where d.tenant = %(tenant)s and (s.user_ref = %(user)s or s.user_ref is null)
order by d.name, d.id limit 1000
"""


@dataclass(frozen=True)
class File:
    """A file as it was sent."""

    name: str
    media_type: str
    data: bytes

    @property
    def digest(self) -> bytes:
        return sha256(self.data).digest()


@dataclass(frozen=True)
class Library:
    """The documents of users and tenants. Raises DatabaseDown, SchemaMismatch."""

    connections: Connections
    scopes: Scopes

    async def known(self, scope: Scope, file: File) -> bool:
        """Whether exactly this file is there, so that it need not be read."""
        place = await self.scopes.anew(scope)
        statement = "select digest from document where scope_id = %(scope)s and name = %(name)s"
        async with self.connections.use(scope.owner) as connection:
            found = await connection.execute(statement, {"scope": place.scope_id, "name": file.name})
            row = await found.fetchone()
        return row is not None and bytes(row[0]) == file.digest

    async def add(self, scope: Scope, file: File, found: Sequence[Chunk]) -> Json:
        """Put a document's chunks into a set; returns how many are new, kept and removed."""
        place = await self.scopes.anew(scope)
        async with self.connections.use(scope.owner) as connection, connection.transaction():
            await connection.execute(LIMITS)
            document, session = await _held(connection, scope, place, file.name, file.media_type)
            memories = _memories(document, scope, file.name, found)
            counts, _ = await self._replace(connection, scope, place, (document, session), memories)
            reached = {"digest": file.digest, "bytes": len(file.data), "chunks": len(memories), "at": None}
            await connection.execute(DONE, {"document": document, "media": file.media_type, **reached})
        status = "added" if not counts["kept"] and not counts["removed"] else "updated"
        unchanged = counts["new"] == counts["removed"] == 0
        return {"id": document, "name": file.name, "status": "unchanged" if unchanged else status, **counts}

    async def bring(self, scope: Scope, whole: Whole) -> dict[str, int]:
        """Put a document into a set as it was exported; returns how many chunks are new, kept and removed.

        One that is the same or newer stays as it is.
        """
        place, told = await self.scopes.anew(scope), whole.document
        lines = sorted(whole.chunks, key=lambda line: line.place)
        async with self.connections.use(scope.owner) as connection, connection.transaction():
            await connection.execute(LIMITS)
            named = {"scope": place.scope_id, "name": told.name}
            standing = await (await connection.execute(STANDING, named)).fetchone()
            if standing and (bytes(standing[0]) == whole.digest != b"" or standing[1] > told.updated_at):
                return {"chunks": standing[2], "new": 0, "kept": len(lines), "removed": 0}
            document, session = await _held(connection, scope, place, told.name, told.media_type)
            memories = [
                (source, replace(memory, ordinal=line.place, content=line.content, said_at=line.said_at))
                for (source, memory), line in zip(
                    _memories(document, scope, told.name, [line.chunk for line in lines]), lines, strict=True
                )
            ]
            counts, ids = await self._replace(connection, scope, place, (document, session), memories)
            marked = ((ids.get(source), line) for (source, _), line in zip(memories, lines, strict=True))
            new = [(number, line) for number, line in marked if number is not None]
            await mark(connection, place.collection_id, new)
            reached = {
                "digest": whole.digest,
                "bytes": told.bytes,
                "chunks": len(lines),
                "at": told.updated_at,
            }
            await connection.execute(DONE, {"document": document, "media": told.media_type, **reached})
        return counts

    async def listed(self, owner: Owner) -> list[Json]:
        """The user's documents and everybody's, by name."""
        async with self.connections.use(owner.seen) as connection:
            rows = await (await connection.execute(LISTED, owner.named)).fetchall()
        return [_document(row) for row in rows]

    async def _replace(
        self,
        connection: Connection,
        scope: Scope,
        place: Place,
        document: tuple[int, int],
        memories: Sequence[tuple[UUID, NewMemory]],
    ) -> tuple[dict[str, int], dict[UUID, int]]:
        """How many chunks there are, new, kept and removed; and the numbers of the new ones by source."""
        wanted = dict(memories)
        at = {"document": document[0], "collection": place.collection_id}
        present = await (await connection.execute(PRESENT, at)).fetchall()
        gone = [row for row in present if row[5] not in wanted]
        kept = {row[5] for row in present} & wanted.keys()
        await remove(connection, gone)
        moved = {
            "sources": [source for source, _ in memories if source in kept],
            "seqs": [one.ordinal for source, one in memories if source in kept],
            "metas": [Jsonb(one.cited) for source, one in memories if source in kept],
        }
        await connection.execute(MOVED, {**at, **moved})
        new = [(source, one) for source, one in memories if source not in kept]
        ids: dict[UUID, int] = {}
        for start in range(0, len(new), BATCH):
            ids |= await self._write(connection, scope, place, document[1], new[start : start + BATCH])
        return {"chunks": len(memories), "new": len(new), "kept": len(kept), "removed": len(gone)}, ids

    async def _write(
        self,
        connection: Connection,
        scope: Scope,
        place: Place,
        session: int,
        batch: Sequence[tuple[UUID, NewMemory]],
    ) -> dict[UUID, int]:
        name = scope.collection
        parameters = written(
            [one for _, one in batch],
            {name: place},
            {name: self.scopes.language(name)},
            [source for source, _ in batch],
        )
        given = {"tenant": scope.tenant, "session": session, "first": 0, "role": scope.role, "adapter": None}
        cursor = await connection.execute(ADD.encode(), {**parameters, **given})
        return {source: number for source, number, _ in await cursor.fetchall()}


async def _held(
    connection: Connection, scope: Scope, place: Place, name: str, media_type: str
) -> tuple[int, int]:
    """The document's row, locked, and its session; made where there is none."""
    named = {
        "tenant": scope.tenant,
        "collection": place.collection_id,
        "scope": place.scope_id,
        "user": scope.user,
        "name": name,
        "media": media_type,
    }
    row = await (await connection.execute(HELD, named)).fetchone()
    return row[:2] if row else (0, 0)


def _memories(document: int, scope: Scope, name: str, found: Sequence[Chunk]) -> list[tuple[UUID, NewMemory]]:
    """Chunks as memories; a chunk's source is its text and how often that came before, so that it outlives edits."""
    seen: Counter[str] = Counter()
    memories = []
    for place, chunk in enumerate(found):
        speaker = f"{name} > {chunk.heading}" if chunk.heading else name
        key = f"{speaker}\x1f{chunk.content}"
        source = uuid5(CHUNK_SOURCES, f"{document}/{seen[key]}/{key}")
        seen[key] += 1
        memory = NewMemory(scope.collection, place, speaker, chunk.content, kind="chunk", trust=TRUST)
        memories.append((source, replace(memory, document=document, cited=_cited(document, name, chunk))))
    return memories


def _cited(document: int, name: str, chunk: Chunk) -> Json:
    told = {
        "document": name,
        "document_id": document,
        "part": chunk.part,
        "heading": chunk.heading,
        "page": chunk.page,
        "line": chunk.line,
    }
    return {key: value for key, value in told.items() if value}


def _document(row: Any) -> Json:
    number, name, collection, media, size, chunks, shared, role, thread, created, updated, owed = row
    return {
        "id": number,
        "name": name,
        "collection": collection,
        "media_type": media,
        "bytes": size,
        "chunks": chunks,
        "owed": owed,
        "shared": shared,
        "role": role,
        "thread_id": str(thread) if thread else None,
        "created_at": created.astimezone(UTC).isoformat(timespec="seconds"),
        "updated_at": updated.astimezone(UTC).isoformat(timespec="seconds"),
    }
