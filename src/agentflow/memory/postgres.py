"""Memories in Postgres: both arms of a search and everything around their hits in one statement.

The keyword arm is BM25 over postings, rarest terms first and up to a budget of postings; the vector arm is
pgvector, exact within a scope where no index is. Where a collection's vectors are searched elsewhere, that place
gives the nearest items and all else stays the same. The statement returns candidates in one packed row, and
retrieval.fusion orders them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector

from agentflow.protocols import Beside, Owner, Scope, Vectors
from agentflow.records.beside import beside
from agentflow.records.connections import Connections
from agentflow.records.memories import forgotten
from agentflow.records.places import Places
from agentflow.records.scopes import Place, Scopes
from agentflow.retrieval.bm25 import K1, B, counts, idf
from agentflow.retrieval.fusion import Pool, Ranked, Related, Weights, ranked
from agentflow.retrieval.terms import DETECTED, Question, question
from agentflow.turn import Recollection, Why

RELATED = Weights().related

# Literals, not parameters: the planner then knows the partition and the width of both arms.
HEAD = f"""
with st as materialized (
  select n_docs::float8 as n, sum_len::float8 / greatest(n_docs, 1) as mean, langs,
         {K1 * B}::float8 * greatest(n_docs, 1) / greatest(sum_len, 1) as per_term {{settings}}
  from scope where id = %(scope)s::int),
own as materialized (
  select distinct a.term from st, unnest(%(terms)s::int[], %(languages)s::text[]) a(term, lang)
  where a.lang = any(st.langs)),
asked as materialized (
  select w.term, a.origin, a.share, w.idf,
         w.idf * a.share * case when a.share = 1 then 1::float8 else {RELATED} end as worth,
         row_number() over kind as place, sum(w.df) over kind as cost
  from st, (select term, term as origin, 1::float4 as share from own
            union all {{related}}) a
       cross join lateral (select term, df, ln(1 + (st.n - df + .5) / (df + .5)) as idf from term_stat
                           where scope_id = %(scope)s::int and term = a.term and df > 0 offset 0) w
  window kind as (partition by a.share = 1 order by w.df, w.term, a.origin)),
words as materialized (
  select p.item_id as id
  from st, asked a cross join lateral (
    select item_id, tf, dl from posting where scope_id = %(scope)s::int and term = a.term offset 0) p
  where a.cost <= case when a.share = 1 then {{own_postings}} else {{near_postings}} end
     or a.place = 1 and a.share = 1
  group by p.item_id
  order by sum(a.worth * p.tf / (p.tf + {K1 * (1 - B)}::float8 + st.per_term * p.dl)) desc, p.item_id
  limit {{width}}),
seeds as materialized (
  select m.session_id, m.seq from words join memory m on m.collection_id = {{collection}} and m.id = words.id
  {{meaning}}),
pool as (
  select m.*, {{cosine}}::float4 as cosine
  from seeds s cross join lateral (
    select * from memory m where m.collection_id = {{collection}} and m.scope_id = %(scope)s::int
      and m.session_id = s.session_id and m.seq between s.seq - 2 and s.seq + 2 offset 0) m
  where not m.hidden and (m.expires_at is null or m.expires_at > now()) and m.trust = any(%(trusts)s::int2[]))
"""  # noqa: S608 - constants, and row ids of ours
HINTS = """
  select r.near, own.term, r.nearness
  from own cross join lateral (
    select near, least(nearness, 0.999) as nearness from related
    where collection_id = {collection} and term = own.term order by related.nearness desc limit {near}) r
"""
MEANING = """
  union (select session_id, seq from memory
         where collection_id = {collection} and scope_id = %(scope)s::int and embedding is not null
         order by (embedding::halfvec({dim}) <=> %(vector)s::halfvec({dim})) {exactly} limit {width})
"""
NEAREST = """
  union (select session_id, seq from memory
         where collection_id = {collection} and scope_id = %(scope)s::int and id = any(%(nearest)s::bigint[]))
"""
COSINE = "(1 - (m.embedding::halfvec({dim}) <=> %(vector)s::halfvec({dim})))"
TAIL = """
select st.n, st.mean, used.terms, used.origins, used.shares, used.weights, rows.*
from st, (select array_agg(term) as terms, array_agg(origin) as origins, array_agg(share) as shares,
                 array_agg(idf) as weights from asked) used, (
  select string_agg(int8send(id) || int8send(session_id) || int4send(seq) || float4send(coalesce(cosine, 'NaN'))
                    || int4send(is_question::int) || int4send(doc_len) || int4send(coalesce(octet_length(bow), 0))
                    || timestamptz_send(said_at)
                    || uuid_send(coalesce(thread_id, '00000000-0000-0000-0000-000000000000'))
                    || int4send(octet_length(speaker)) || int4send(octet_length(content))
                    || int4send(octet_length(case kind when 2 then meta::text else '' end)), ''::bytea),
         string_agg(coalesce(bow, ''::bytea), ''::bytea),
         string_agg(convert_to(speaker || content || case kind when 2 then meta::text else '' end, 'UTF8'), ''::bytea)
  from pool) rows
"""
FETCH = """
select m.id, m.speaker, m.said_at, m.content, m.thread_id, m.session_id, case m.kind when 2 then m.meta end
from memory m
where m.collection_id = %(collection)s and m.scope_id = %(scope)s and m.id = any(%(ids)s::bigint[]) and not m.hidden
order by array_position(%(ids)s::bigint[], m.id)
"""
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
TRUSTED = [1, 2, 3, 5]


@dataclass(frozen=True)
class Reach:
    """How far a search looks: hits per arm, words near each of the question's, and the postings it reads of the
    question's own words, rarest first (at least one word's), and of those near them.

    `exactly` keeps the planner from an index over the whole collection; `settings` are for the index.
    """

    width: int = 50
    near: int = 8
    own_postings: int = 2000
    near_postings: int = 500
    exactly: str = "+ 0"
    settings: str = ""


EXACT = Reach()
INDEXED = Reach(width=25, near=4, own_postings=800, near_postings=150, exactly="")
VAST = replace(INDEXED, settings=", set_config('hnsw.ef_search', '200', true)")
LARGE, HUGE = 8_000, 300_000
"""Items of a scope from which on the collection's index is asked, and from which on it must look wider."""


class Row(NamedTuple):
    """A candidate's header; `bag`, `speaker`, `content` and `cited` are sizes in bytes, `said_at` microseconds since
    2000.
    """

    id: int
    session: int
    seq: int
    cosine: float
    question: int
    length: int
    bag: int
    said_at: int
    thread: bytes
    speaker: int
    content: int
    cited: int


ROW = np.dtype(
    list(
        zip(
            Row._fields,
            (">i8", ">i8", ">i4", ">f4", ">i4", ">i4", ">i4", ">i8", "V16", ">i4", ">i4", ">i4"),
            strict=True,
        )
    )
)


class Reply(NamedTuple):
    """The one row of a search."""

    documents: float
    mean: float
    terms: list[int] | None
    origins: list[int] | None
    shares: list[float] | None
    weights: list[float] | None
    rows: bytes | None
    bags: bytes | None
    texts: bytes | None


@dataclass(frozen=True)
class PostgresMemory:
    """The default home; `places` are those collections' whose vectors are searched elsewhere."""

    connections: Connections
    scopes: Scopes
    places: Places | None = None
    sizes: dict[int, float] = field(default_factory=dict)

    async def search(self, scope: Scope, text: str, vector: Vectors | None, k: int) -> list[Recollection]:
        """See MemoryHome.search."""
        place = await self.scopes.of(scope)
        asked = question(text, self._languages(scope.collection))
        parameters = {
            "scope": place.scope_id,
            "terms": list(asked.terms),
            "languages": list(asked.languages),
            "vector": None if vector is None else HalfVector(vector),
            "nearest": await self._elsewhere(scope, place, vector),
            "trusts": TRUSTED,
        }
        meaning = MEANING if parameters["nearest"] is None else NEAREST
        reach = self._reach(place)
        statement = self._statement(place, reach, meaning if vector is not None else "")
        async with (
            self.connections.use(scope.owner, fixed_plan=reach is not EXACT) as connection,
            connection.cursor(binary=True) as cursor,
        ):
            await cursor.execute(statement, parameters)
            row = await cursor.fetchone()
        reply = Reply(*row) if row else None
        if reply is None or reply.texts is None:
            return []
        self.sizes[place.scope_id] = reply.documents
        return _recollections(reply, asked, scope, k)

    async def fetch(self, scope: Scope, ids: Sequence[int]) -> list[Recollection]:
        """See MemoryHome.fetch."""
        place = await self.scopes.of(scope)
        parameters = {"collection": place.collection_id, "scope": place.scope_id, "ids": list(ids)}
        async with self.connections.use(scope.owner) as connection:
            cursor = await connection.execute(FETCH, parameters)
            return [_fetched(row, scope) for row in await cursor.fetchall()]

    async def beside(
        self, owner: Owner, *, role: str | None, thread: str | None, collections: Sequence[str]
    ) -> Beside:
        """See MemoryHome.beside."""
        return await beside(self.connections, owner, role=role, thread=thread, collections=collections)

    async def forget(self, scope: Scope, ids: Sequence[int] | None = None) -> int:
        """See MemoryHome.forget."""
        place = await self.scopes.of(scope)
        async with self.connections.use(scope.owner) as connection, connection.transaction():
            return await forgotten(connection, place, ids)

    def _languages(self, collection: str) -> tuple[str, ...]:
        chosen = self.scopes.language(collection)
        return DETECTED if chosen == "auto" else (chosen,)

    async def _elsewhere(self, scope: Scope, place: Place, vector: Vectors | None) -> list[int] | None:
        """The nearest items as the collection's own place knows them; None: they are searched here."""
        if self.places is None or vector is None:
            return None
        return await self.places.nearest(scope.collection, place, vector, self._reach(place).width)

    def _reach(self, place: Place) -> Reach:
        """A small scope is searched exactly and faster so; in an index its items would be few among many."""
        size = self.sizes.get(place.scope_id, place.items)
        if place.collection_id not in self.scopes.indexed or size < LARGE:
            return EXACT
        return INDEXED if size < HUGE else VAST

    def _statement(self, place: Place, reach: Reach, meaning: str) -> bytes:
        literals = {"collection": place.collection_id, "dim": self.scopes.dim, **asdict(reach)}
        head = HEAD.format(
            **literals,
            related=HINTS.format(**literals),
            meaning=meaning.format(**literals),
            cosine=COSINE.format(**literals) if meaning else "null",
        )
        if reach is not EXACT:  # few scopes are large, and the planner must know which one it is
            head = head.replace("%(scope)s", str(place.scope_id))
        return (head + TAIL).encode()


def _fetched(row: Any, scope: Scope) -> Recollection:
    item, speaker, said_at, content, thread, session, cited = row
    found: Recollection = {
        "id": item,
        "collection": scope.collection,
        "speaker": speaker,
        "said_at": said_at.astimezone(UTC).isoformat(timespec="seconds"),
        "content": content,
        "score": 0.0,
        "thread_id": str(thread) if thread else None,
        "session": session,
    }
    if cited:
        found["cited"] = cited
    return found


def _recollections(reply: Reply, asked: Question, scope: Scope, k: int) -> list[Recollection]:
    rows = np.frombuffer(reply.rows or b"", ROW)
    once = np.unique(rows["id"], return_index=True)[1]  # a row between two hits comes with both
    best = ranked(_pool(reply, rows, once, asked), k)
    places = [int(once[one.row]) for one in best]
    ends = np.cumsum(rows["speaker"] + rows["content"] + rows["cited"])[places].tolist()
    words = asked.under(asked.languages)
    shown = [asked.words[words[term]] for term, share in _terms(reply) if share == 1]
    return [
        _recollection(Row(*row), (reply.texts or b"")[:end], one, scope, shown)
        for row, end, one in zip(rows[places].tolist(), ends, best, strict=True)
    ]


def _terms(reply: Reply) -> list[tuple[int, float]]:
    return list(zip(reply.terms or [], reply.shares or [], strict=True))


def _pool(reply: Reply, rows: NDArray[np.void], once: NDArray[np.int64], asked: Question) -> Pool:
    terms = np.array(reply.terms or [], np.int64)
    shares = np.array(reply.shares or [], np.float64)
    weights = np.array(reply.weights or [], np.float64)
    own, near = shares == 1, shares < 1
    distinct, column = np.unique(terms, return_inverse=True)
    found = counts(reply.bags or b"", rows["bag"], distinct.tolist())[once]
    rows = rows[once]
    known = set(terms[own].tolist())
    met = {place for term, place in zip(asked.terms, asked.places, strict=True) if term in known}
    unmet = len(asked.own - met) * float(idf(reply.documents, np.zeros(1))[0])
    return Pool(
        ids=rows["id"].astype(np.int64),
        sessions=rows["session"].astype(np.int64),
        positions=rows["seq"].astype(np.int64),
        cosines=rows["cosine"].astype(np.float64),
        questions=rows["question"] > 0,
        lengths=rows["length"].astype(np.int64),
        found=found[:, column[own]],
        weights=weights[own],
        mean_length=reply.mean,
        owed=float(weights[own].sum()) + unmet,
        related=Related(
            found[:, column[near]], weights[near], shares[near], np.array(reply.origins or [], np.int64)[near]
        ),
    )


def _recollection(row: Row, texts: bytes, one: Ranked, scope: Scope, words: Sequence[str]) -> Recollection:
    """`texts` ends with the row's speaker, content and citation; `words` are those of the terms."""
    why: Why = {**one.parts, "matched": [words[place] for place in one.parts["matched"]]}
    end = len(texts) - row.cited
    found: Recollection = {
        "id": row.id,
        "collection": scope.collection,
        "speaker": texts[end - row.content - row.speaker : end - row.content].decode(),
        "said_at": (EPOCH + timedelta(microseconds=row.said_at)).isoformat(timespec="seconds"),
        "content": texts[end - row.content : end].decode(),
        "score": one.relevance,
        "thread_id": str(UUID(bytes=row.thread)) if any(row.thread) else None,
        "session": row.session,
        "why": why,
    }
    if row.cited:
        found["cited"] = json.loads(texts[end:])
    return found
