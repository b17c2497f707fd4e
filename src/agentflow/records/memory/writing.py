"""Memories with their words: the part of a statement that every writer of memories shares.

Its words are written with the memory itself, so the next turn finds it by them; the scope's row is locked first, which
puts the writers of one scope in line and keeps its counts exact.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from pgvector import HalfVector

from agentflow.protocols import NewMemory, Scope
from agentflow.records.connections import Connection, Connections
from agentflow.records.memory.postings import LOCK, WORDS, take_out
from agentflow.records.memory.scopes import Place, Scopes
from agentflow.retrieval import terms
from agentflow.retrieval.codes import coded
from agentflow.retrieval.pieces import tokens

KINDS = ("", "turn", "chunk", "fact", "summary")
TRUST = {"assistant": 2}  # 1: the user, or whoever a transcript of the user's names

# Needs a row "place" (tenant, thread_id, session_id, first: seq of ordinal 0); gives "i", the new memories.
INSERT = """
lk as materialized (select id, posted from scope where id = any(%(scopes)s::int[]) order by id for update),
i as (
  insert into memory (collection_id, tenant, scope_id, kind, trust, session_id, seq, speaker, said_at, content,
                      n_tokens, lang, bow, doc_len, is_question, embedding, vector, thread_id, source_message, chunk_no,
                      role_name, adapter, document_id, meta)
  select u.collection, place.tenant, lk.id, u.kind, u.trust, place.session_id, place.first + u.ordinal, u.speaker,
         u.said_at, u.content, u.tokens, u.lang, u.bow, u.length, u.question, u.code,
         case when lk.posted then u.vector end, place.thread_id, u.source, u.piece, %(role)s, %(adapter)s, u.document,
         u.meta::jsonb
  from place, unnest(%(collections)s::int[], %(scopes)s::int[], %(trusts)s::int2[], %(ordinals)s::int[],
                     %(speakers)s::text[], %(said)s::timestamptz[], %(contents)s::text[], %(tokens)s::int[],
                     %(langs)s::text[], %(bows)s::bytea[], %(lengths)s::int2[], %(questions)s::bool[],
                     %(codes)s::bytea[], %(vectors)s::halfvec[], %(sources)s::uuid[], %(pieces)s::int[],
                     %(kinds)s::int2[], %(documents)s::bigint[], %(metas)s::text[])
       u(collection, scope, trust, ordinal, speaker, said_at, content, tokens, lang, bow, length, question, code,
         vector, source, piece, kind, document, meta) join lk on lk.id = u.scope
  order by u.ordinal
  on conflict (collection_id, source_message, chunk_no) where source_message is not null do nothing
  returning collection_id, id, tenant, scope_id, seq - (select first from place) as key, doc_len, lang, embedding,
            source_message, chunk_no),
o as (
  insert into outbox (tenant, kind, item_id, collection_id)
  select tenant, 'embed', id, collection_id from i where embedding is null),
"""

ADD = f"""
with place as (
  select %(tenant)s::int as tenant, null::uuid as thread_id, %(session)s::bigint as session_id,
         %(first)s::int as first),
{INSERT} {WORDS}
select source_message, id, chunk_no from i
"""  # noqa: S608 - constants above

# Memories that were written before their words were kept.
INDEX = f"""
with lk as materialized (select id, posted from scope where id = any(%(scopes)s::int[]) order by id for update),
i as (
  update memory m set bow = u.bow, doc_len = u.length, is_question = u.question, lang = u.lang, n_tokens = u.tokens
  from unnest(%(collections)s::int[], %(scopes)s::int[], %(ids)s::bigint[], %(bows)s::bytea[], %(lengths)s::int2[],
              %(questions)s::bool[], %(langs)s::text[], %(tokens)s::int[])
       u(collection, scope, id, bow, length, question, lang, tokens) join lk on lk.id = u.scope
  where m.collection_id = u.collection and m.id = u.id and m.bow is null
  returning m.scope_id, m.id, m.id as key, m.doc_len, m.lang),
{WORDS}
select count(*) from i
"""  # noqa: S608 - constants above

# All of a scope, or the items named.
BAGS = """
select collection_id, id, scope_id, bow from memory
where collection_id = %(collection)s and scope_id = %(scope)s
  and (%(ids)s::bigint[] is null or id = any(%(ids)s::bigint[]))
"""
FORGIVE = "delete from outbox where item_id = any(%(ids)s::bigint[]) and collection_id = %(collection)s"
FORGET = "delete from memory where collection_id = %(collection)s and id = any(%(ids)s::bigint[])"

SESSION = "select nextval('session_seq')"


@dataclass(frozen=True)
class Text:
    """A memory's text and what tells its words; `key` is its own among the texts of its scope."""

    place: Place
    key: int
    speaker: str
    content: str
    said_at: datetime
    language: str


def indexed(texts: Sequence[Text]) -> dict[str, Any]:
    """What the statements above need to know of the texts' words."""
    bags = [
        terms.bag(
            terms.keyword_text(t.content, speaker=t.speaker, said_at=t.said_at, language=t.language),
            t.language,
        )
        for t in texts
    ]
    sizes = [len(bag.terms) for bag in bags]
    return {
        "collections": [text.place.collection_id for text in texts],
        "scopes": [text.place.scope_id for text in texts],
        "bows": [bag.packed() for bag in bags],
        "lengths": [bag.length for bag in bags],
        "questions": [terms.asks(text.content) for text in texts],
        "langs": [text.language for text in texts],
        "tokens": [tokens(text.content) for text in texts],
        "word_scopes": np.repeat([text.place.scope_id for text in texts], sizes).tolist(),
        "word_keys": np.repeat([text.key for text in texts], sizes).tolist(),
        "word_terms": [term for bag in bags for term in bag.terms.tolist()],
        "word_counts": [count for bag in bags for count in bag.counts.tolist()],
    }


def written(
    memories: Sequence[NewMemory],
    places: Mapping[str, Place],
    languages: Mapping[str, str],
    sources: Sequence[UUID | None],
) -> dict[str, Any]:
    """The parameters of INSERT and WORDS; `places` and `languages` by collection."""
    now = datetime.now(UTC)
    spoken = _spoken_language(memories)
    texts = [
        Text(
            places[one.collection],
            one.ordinal,
            one.speaker,
            one.content,
            one.said_at or now,
            _language(languages[one.collection], one.content, spoken),
        )
        for one in memories
    ]
    return {
        **indexed(texts),
        "trusts": [one.trust or TRUST.get(one.speaker, 1) for one in memories],
        "kinds": [KINDS.index(one.kind) for one in memories],
        "documents": [one.document for one in memories],
        "metas": [json.dumps(one.cited, ensure_ascii=False) if one.cited else "{}" for one in memories],
        "ordinals": [one.ordinal for one in memories],
        "speakers": [one.speaker for one in memories],
        "said": [text.said_at for text in texts],
        "contents": [one.content for one in memories],
        "codes": [None if one.vector is None else coded(one.vector[None])[0] for one in memories],
        "vectors": [None if one.vector is None else HalfVector(one.vector) for one in memories],
        "sources": list(sources),
        "pieces": [one.piece for one in memories],
    }


@dataclass(frozen=True)
class Archive:
    """Memories that no turn wrote: transcripts, and later documents."""

    connections: Connections
    scopes: Scopes

    async def session(self) -> int:
        """A new stretch of conversation."""
        async with self.connections.background() as connection:
            row = await (await connection.execute(SESSION)).fetchone()
        return int(row[0]) if row else 0

    async def add(
        self, scope: Scope, session: int, first: int, memories: Sequence[tuple[UUID, NewMemory]]
    ) -> dict[UUID, int]:
        """Write memories at `first` + ordinal of the session; returns the ids of the new ones by source.

        Each comes with the id of its source, which makes repeating harmless. Raises DatabaseDown, SchemaMismatch.
        """
        place = await self.scopes.anew(scope)
        parameters = written(
            [one for _, one in memories],
            {scope.collection: place},
            {scope.collection: self.scopes.language(scope.collection)},
            [source for source, _ in memories],
        )
        added = {"tenant": scope.tenant, "session": session, "first": first, "role": None, "adapter": None}
        async with self.connections.use(scope.owner) as connection:
            cursor = await connection.execute(ADD.encode(), {**parameters, **added})
            return {source: number for source, number, _ in await cursor.fetchall()}


async def forgotten(connection: Connection, place: Place, ids: Sequence[int] | None) -> int:
    """Delete a scope's items (None: all) with their words, counts and debts; returns how many. Needs a transaction."""
    named = {"collection": place.collection_id, "scope": place.scope_id, "scopes": [place.scope_id]}
    await connection.execute(LOCK, named)
    cursor = await connection.execute(BAGS, {**named, "ids": None if ids is None else list(ids)})
    rows = await cursor.fetchall()
    gone = {**named, "ids": [row[1] for row in rows]}
    # The debt first: who pays it holds it, then writes the memory.
    await connection.execute(FORGIVE, gone)
    await take_out(connection, rows)
    await connection.execute(FORGET, gone)
    return len(rows)


def _spoken_language(memories: Sequence[NewMemory]) -> str:
    """The language of all texts together: for those too short to tell."""
    return terms.language_of("\n".join(one.content for one in memories))


def _language(chosen: str, content: str, spoken: str) -> str:
    return terms.language_of(content, spoken) if chosen == "auto" else chosen
