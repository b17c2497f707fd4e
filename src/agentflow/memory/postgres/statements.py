"""The statements of a search, each one round trip: candidates, and what their order needs, in one packed row.

A scope without postings is read whole, and retrieval.candidates chooses. Of a larger one Postgres chooses: by BM25
over postings, rarest terms first and up to a budget of them; by pgvector, exact within the scope where no index is;
and where a collection's vectors are searched elsewhere, by what that place found.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pgvector import HalfVector

from agentflow.protocols import Vectors
from agentflow.records.memory.postings import COUNT, ITEM, LENGTH
from agentflow.records.memory.scopes import Place
from agentflow.records.memory.vocabulary import NEAR, NEARNESS
from agentflow.retrieval.bm25 import K1, B
from agentflow.retrieval.fusion import Weights

RELATED = Weights().related
VISIBLE = """
not m.hidden and (m.expires_at is null or m.expires_at > now()) and m.trust = any(%(trusts)s::int2[])
""".strip()

# Literals, not parameters: the planner then knows the partition and the width of both arms.
ASKED = f"""
with st as materialized (
  select n_docs::float8 as n, sum_len::float8 / greatest(n_docs, 1) as mean, langs, posted,
         {K1 * B}::float8 * greatest(n_docs, 1) / greatest(sum_len, 1) as per_term {{settings}}
  from scope where id = %(scope)s::int),
own as materialized (
  select distinct a.term from st, unnest(%(terms)s::int[], %(languages)s::text[]) a(term, lang)
  where a.lang = any(st.langs)),
"""  # noqa: S608 - constants
READ = f"""
asked as materialized (
  select a.term, a.origin, a.share, null::float8 as idf
  from (select term, term as origin, 1::float4 as share from own
        union all {{related}}) a),
pool as (
  select m.* from memory m
  where (select not posted from st) and m.collection_id = {{collection}} and m.scope_id = %(scope)s::int
    and {VISIBLE})
"""  # noqa: S608 - constants
FOUND = f"""
asked as materialized (
  select w.term, a.origin, a.share, w.idf,
         w.idf * a.share * case when a.share = 1 then 1::float8 else {RELATED} end as worth,
         row_number() over kind as place, sum(w.df) over kind as cost
  from st, (select term, term as origin, 1::float4 as share from own
            union all {{related}}) a
       cross join lateral (select term, df, ln(1 + (st.n - df + .5) / (df + .5)) as idf from posting
                           where scope_id = %(scope)s::int and term = a.term and block = 0 and df > 0 offset 0) w
  window kind as (partition by a.share = 1 order by w.df, w.term, a.origin)),
words as materialized (
  select p.item as id
  from st, asked a cross join lateral (
    select {ITEM.format(entry="e")} as item, {COUNT.format(entry="e")} as tf, {LENGTH.format(entry="e")} as dl
    from posting cross join unnest(entries) e where scope_id = %(scope)s::int and term = a.term offset 0) p
  where a.cost <= case when a.share = 1 then {{own_postings}} else {{near_postings}} end
     or a.place = 1 and a.share = 1
  group by p.item
  order by sum(a.worth * p.tf / (p.tf + {K1 * (1 - B)}::float8 + st.per_term * p.dl)) desc, p.item
  limit {{width}}),
seeds as materialized (
  select m.session_id, m.seq from words join memory m on m.collection_id = {{collection}} and m.id = words.id
  {{meaning}}),
pool as (
  select m.*
  from seeds s cross join lateral (
    select * from memory m where m.collection_id = {{collection}} and m.scope_id = %(scope)s::int
      and m.session_id = s.session_id and m.seq between s.seq - 2 and s.seq + 2 offset 0) m
  where {VISIBLE})
"""  # noqa: S608 - constants, and row ids of ours
HINTS = f"""
  select r.near, own.term, r.nearness::float4
  from own cross join lateral (
    select {NEAR.format(entry="e")} as near, {NEARNESS.format(entry="e")} as nearness
    from word cross join unnest(nearest[1:{{near}}]) e
    where collection_id = {{collection}} and term = own.term offset 0) r
"""  # noqa: S608 - constants
MEANING = """
  union (select session_id, seq from memory
         where collection_id = {collection} and scope_id = %(scope)s::int and vector is not null
         order by (vector::halfvec({dim}) <=> %(vector)s::halfvec({dim})) {exactly} limit {width})
"""
NEAREST = """
  union (select session_id, seq from memory
         where collection_id = {collection} and scope_id = %(scope)s::int and id = any(%(nearest)s::bigint[]))
"""
TAIL = """
select st.n, st.mean, st.posted, used.terms, used.origins, used.shares, used.weights, rows.*
from st, (select array_agg(term) as terms, array_agg(origin) as origins, array_agg(share) as shares,
                 array_agg(idf) as weights from asked) used, (
  select string_agg(int8send(id) || int8send(session_id) || int4send(seq)
                    || int4send(coalesce(octet_length({code}), 0)) || int4send(is_question::int)
                    || int4send(doc_len) || int4send(coalesce(octet_length(bow), 0))
                    || timestamptz_send(said_at)
                    || uuid_send(coalesce(thread_id, '00000000-0000-0000-0000-000000000000'))
                    || int4send(octet_length(speaker)) || int4send(octet_length(content))
                    || int4send(octet_length(case kind when 2 then meta::text else '' end)), ''::bytea),
         string_agg(coalesce(bow, ''::bytea), ''::bytea), string_agg(coalesce({code}, ''::bytea), ''::bytea),
         string_agg(convert_to(speaker || content || case kind when 2 then meta::text else '' end, 'UTF8'), ''::bytea)
  from pool) rows
"""


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


@dataclass(frozen=True)
class Sought:
    """A question's vector, and the ids of what is nearest to it where another place knows them."""

    vector: Vectors | None
    nearest: Sequence[int] | None
    reach: Reach

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the statements."""
        vector = None if self.vector is None else HalfVector(self.vector)
        return {"vector": vector, "nearest": None if self.nearest is None else list(self.nearest)}


def whole(place: Place, dim: int, *, vector: bool) -> bytes:
    """For a scope without postings; with a vector also those of its memories."""
    return _statement(READ, place, EXACT, dim, "", vector=vector)


def found(place: Place, dim: int, sought: Sought) -> bytes:
    """For a scope with postings."""
    vector = sought.vector is not None
    meaning = NEAREST if sought.nearest is not None else MEANING if vector else ""
    statement = _statement(FOUND, place, sought.reach, dim, meaning, vector=vector)
    if sought.reach is EXACT:
        return statement
    # Few scopes are large, and the planner must know which one it is.
    return statement.replace(b"%(scope)s", str(place.scope_id).encode())


def _statement(body: str, place: Place, reach: Reach, dim: int, meaning: str, *, vector: bool) -> bytes:
    literals = {"collection": place.collection_id, "dim": dim, **asdict(reach)}
    head = (ASKED + body).format(
        **literals, related=HINTS.format(**literals), meaning=meaning.format(**literals)
    )
    return (head + TAIL.format(code="embedding" if vector else "null::bytea")).encode()
