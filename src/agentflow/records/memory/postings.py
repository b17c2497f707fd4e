"""Postings: which memories of a scope hold a word, for scopes that are too large to be read whole.

A scope of up to WHOLE memories has none: a search reads all its bags of words (memory/postgres/). Beyond that the
background gives it postings (`settle`), and from then on every writer adds its own.

An entry is one bigint: the memory's id (39 bits), how often the word occurs in it (8 bits, 255 at most), and how many
words it has (16 bits). A term's entries stand in blocks. Block 0 is open: writers append to it, and its `df` counts the
term's memories in all blocks. A block that has grown long is sealed, its entries moved to a block of their own, so
that no turn rewrites a long row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector

from agentflow.records.connections import Connection, Connections
from agentflow.retrieval import terms
from agentflow.retrieval.codes import decoded

WHOLE = 2000
"""Memories of a scope up to which a search reads them all."""
LONG, SEALED = 192, 128
"""Entries of an open block from which on it is long (a row of 2 kB would leave its page), and of a sealed one."""
KEPT = 64
"""Entries that stay in an open block when another one of its scope is long."""

ENTRY = "({item} << 24) + (least({count}, 255)::bigint << 16) + {length}"
ITEM, COUNT, LENGTH = "({entry} >> 24)", "({entry} >> 16 & 255)", "({entry} & 65535)"

# Whoever changes postings locks the scope first, in a statement of its own that the others can see the end of.
LOCK = "select id from scope where id = any(%(scopes)s::int[]) order by id for update"

# Gives the words of the memories in "i" to their scopes, locked in "lk"; "key" tells the memories of a scope apart.
WORDS = f"""
p as (
  insert into posting as x (scope_id, term, block, df, entries)
  select i.scope_id, u.term, 0, count(*), array_agg({ENTRY.format(item="i.id", count="u.tf", length="i.doc_len")})
  from unnest(%(word_scopes)s::int[], %(word_keys)s::bigint[], %(word_terms)s::int[], %(word_counts)s::int2[])
       u(scope, key, term, tf) join i on i.scope_id = u.scope and i.key = u.key
  where i.scope_id = any(array(select id from lk where posted))
  group by i.scope_id, u.term order by i.scope_id, u.term
  on conflict (scope_id, term, block) do update set df = x.df + excluded.df, entries = x.entries || excluded.entries
  returning x.scope_id, cardinality(x.entries) as entries),
s as (
  update scope set n_docs = n_docs + g.items, sum_len = sum_len + g.length,
                   langs = case when scope.langs @> g.langs then scope.langs
                                else array(select distinct unnest(scope.langs || g.langs) order by 1) end
  from (select scope_id, count(*) as items, sum(doc_len) as length, array_agg(distinct lang) as langs
        from i group by scope_id) g
  where scope.id = g.scope_id returning scope.id, scope.tenant, scope.n_docs, scope.posted),
grown as (
  insert into outbox (tenant, kind, payload)
  select s.tenant, 'post', jsonb_build_object('scope', s.id) from s
  where not s.posted and s.n_docs > {WHOLE} or s.id in (select p.scope_id from p where p.entries >= {LONG}))
"""  # noqa: S608 - constants
DUE = """
select o.payload -> 'scope' from outbox o where o.kind = 'post' and o.not_before <= now()
order by o.id for update skip locked limit 1
"""
# Vectors arrive beside a scope's turns, under no lock of it; but not while it is given postings.
BESIDE = """
select pg_advisory_xact_lock_shared(hashtextextended('vectors ' || id, 0))
from unnest(%(scopes)s::int[]) id group by id order by id
"""
ALONE = "select pg_advisory_xact_lock(hashtextextended('vectors ' || %(scope)s::int, 0))"
UNPOSTED = "select collection_id from scope where id = %(scope)s and not posted"
BAGS = """
select id, doc_len, bow from memory where collection_id = %(collection)s and scope_id = %(scope)s and bow is not null
"""
POST = """
with s as (update scope set posted = true where id = %(scope)s)
insert into posting (scope_id, term, block, df, entries)
select %(scope)s, u.term, 0, count(*), array_agg(u.entry order by u.entry)
from unnest(%(terms)s::int[], %(entries)s::bigint[]) u(term, entry) group by u.term order by u.term
"""
CODES = """
select m.id, m.embedding, c.dim from memory m join collection c on c.id = m.collection_id
where m.collection_id = %(collection)s and m.scope_id = %(scope)s and m.embedding is not null and m.id > %(after)s
order by m.id limit 1000
"""
COMPARABLE = """
update memory m set vector = u.vector from unnest(%(items)s::bigint[], %(vectors)s::halfvec[]) u(item, vector)
where m.collection_id = %(collection)s and m.id = u.item
"""
SEAL = f"""
with long as materialized (
  select term, entries from posting where scope_id = %(scope)s and block = 0 and cardinality(entries) >= {KEPT}),
sealed as (
  insert into posting (scope_id, term, block, df, entries)
  select %(scope)s, long.term, last.block + 1 + (e.place - 1) / {SEALED}, 0, array_agg(e.entry order by e.place)
  from long cross join lateral (select coalesce(max(block), 0) as block from posting
                                where scope_id = %(scope)s and term = long.term) last
       cross join lateral unnest(long.entries) with ordinality e(entry, place)
  group by long.term, last.block, (e.place - 1) / {SEALED})
update posting x set entries = '{{}}' from long where x.scope_id = %(scope)s and x.term = long.term and x.block = 0
"""  # noqa: S608 - constants
# All that was told of the scope until its lock was taken; another process may be busy with one of them.
SETTLED = """
delete from outbox where id = any(array(
  select id from outbox where kind = 'post' and payload -> 'scope' = to_jsonb(%(scope)s::int) for update skip locked))
"""

# The words of memories taken out of the index; the memories themselves stay.
UNINDEX = """
with i as (
  update memory m set bow = null, embedding = null, vector = null
  from unnest(%(collections)s::int[], %(ids)s::bigint[]) u(collection, id)
  where m.collection_id = u.collection and m.id = u.id and m.bow is not null
  returning m.scope_id, m.id, m.doc_len),
g as materialized (
  select i.scope_id, w.term, array_agg(i.id) as ids, count(*)::int as items
  from unnest(%(word_items)s::bigint[], %(word_terms)s::int[]) w(item, term) join i on i.id = w.item
  group by i.scope_id, w.term),
p as (
  update posting x set df = x.df - case when x.block = 0 then g.items else 0 end,
                       entries = array(select e from unnest(x.entries) e where e >> 24 <> all(g.ids))
  from g
  where x.scope_id = g.scope_id and x.term = g.term
    and (x.block = 0 or exists (select from unnest(x.entries) e where e >> 24 = any(g.ids)))),
s as (
  update scope set n_docs = n_docs - g.items, sum_len = sum_len - g.length
  from (select scope_id, count(*) as items, sum(doc_len) as length from i group by scope_id) g
  where scope.id = g.scope_id)
select coalesce(sum(items), 0) from g
"""
UNUSED = """
delete from posting where scope_id = any(%(scopes)s::int[]) and term = any(%(terms)s::int[])
  and cardinality(entries) = 0 and (block > 0 or df <= 0)
"""


def packed(
    items: NDArray[np.int64], counts: NDArray[np.integer], lengths: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Entries, as ENTRY packs them."""
    least = np.minimum(counts, 255).astype(np.int64)
    entries: NDArray[np.int64] = (items.astype(np.int64) << 24) + (least << 16) + lengths.astype(np.int64)
    return entries


def unindexed(rows: Sequence[tuple[int, int, int, bytes | None]]) -> dict[str, Any]:
    """The parameters of UNINDEX and UNUSED: collection, id, scope and bag of words of each memory."""
    bags = [np.frombuffer(bag or b"", terms.ENTRY)["term"] for *_, bag in rows]
    return {
        "collections": [collection for collection, *_ in rows],
        "ids": [item for _, item, _, _ in rows],
        "scopes": sorted({scope for _, _, scope, _ in rows}),
        "word_items": np.repeat([item for _, item, _, _ in rows], [len(bag) for bag in bags]).tolist(),
        "word_terms": [term for bag in bags for term in bag.tolist()],
        "terms": distinct([bag for *_, bag in rows if bag]),
    }


def distinct(bags: Sequence[bytes]) -> list[int]:
    """The terms of packed bags, once each."""
    found: list[int] = np.unique(np.frombuffer(b"".join(bags), terms.ENTRY)["term"]).tolist()
    return found


async def take_out(connection: Connection, rows: Sequence[tuple[int, int, int, bytes | None]]) -> int:
    """Take memories (collection, id, scope, bag of words) out of every index, in a transaction.

    Returns of how many words.
    """
    parameters = unindexed(rows)
    await connection.execute(LOCK, parameters)
    found = await (await connection.execute(UNINDEX, parameters)).fetchone()
    await connection.execute(UNUSED, parameters)
    return int(found[0]) if found else 0


async def settle(connections: Connections) -> bool:
    """Give postings to one scope that has grown too large to be read whole, or seal its long blocks.

    False if none was due. Raises DatabaseDown.
    """
    async with connections.background() as connection, connection.transaction():
        due = await (await connection.execute(DUE)).fetchone()
        if due is None:
            return False
        scope = {"scope": due[0], "scopes": [due[0]]}
        await connection.execute(LOCK, scope)
        unposted = await (await connection.execute(UNPOSTED, scope)).fetchone()
        if unposted is not None:
            await connection.execute(ALONE, scope)
            await _post(connection, {**scope, "collection": unposted[0]})
            await _compare(connection, {**scope, "collection": unposted[0]})
        await connection.execute(SEAL.encode(), scope)
        await connection.execute(SETTLED, scope)
        return True


async def _post(connection: Connection, scope: dict[str, Any]) -> None:
    rows = await (await connection.execute(BAGS, scope)).fetchall()
    bags = [np.frombuffer(bag, terms.ENTRY) for *_, bag in rows]
    sizes = [len(bag) for bag in bags]
    words = np.concatenate([np.empty(0, terms.ENTRY), *bags])
    items, lengths = (np.repeat(np.array([row[at] for row in rows], np.int64), sizes) for at in (0, 1))
    entries = packed(items, words["count"], lengths)
    await connection.execute(POST, {**scope, "terms": words["term"].tolist(), "entries": entries.tolist()})


async def _compare(connection: Connection, scope: dict[str, Any]) -> None:
    """Vectors as pgvector compares them; until now the scope was read whole."""
    after = 0
    while rows := await (await connection.execute(CODES, {**scope, "after": after})).fetchall():
        items = [item for item, *_ in rows]
        vectors = decoded([code for _, code, _ in rows], rows[0][2])
        given = {"items": items, "vectors": [HalfVector(vector) for vector in vectors]}
        await connection.execute(COMPARABLE, {**scope, **given})
        after = items[-1]
