"""A vector index for each large collection, of its own rows alone and built while turns go on.

An index over several collections would be filtered after the search and find too little (pgvector's post-filtering);
a collection below some ten thousand memories is searched exactly, and as fast, without one.
"""

from collections.abc import Collection
from dataclasses import dataclass

import structlog
from psycopg import sql

from agentflow.records.connections import Connections

log = structlog.get_logger(__name__)
MOST_MEMORY = 8192
"""Megabytes that building an index may take."""
LARGE = 10_000
"""Memories from which on a collection gets an index."""

BUILD = """
create index concurrently {index} on {table} using hnsw ((vector::halfvec({dim})) halfvec_cosine_ops)
with (m = 16, ef_construction = 64) where collection_id = {collection} and vector is not null
"""
DROP = "drop index concurrently if exists {index}"
# The collection's index, whether it is whole, and the partition that holds the collection.
FOUND = """
select i.indisvalid, coalesce(n.own, to_regclass('agentflow.memory_default'))::text
from (select to_regclass('agentflow.memory_c' || %(collection)s || '_hnsw') as index,
             to_regclass('agentflow.memory_c' || %(collection)s) as own) n
left join pg_index i on i.indexrelid = n.index
"""
LARGE_ONES = """
select c.id, c.dim, c.name, sum(s.n_docs)::bigint from collection c join scope s on s.collection_id = c.id
where c.name <> all(%(elsewhere)s::text[])
group by c.id having sum(s.n_docs) >= %(large)s
"""
INDEXED = """
select c.id from collection c
join pg_index i on i.indexrelid = to_regclass('agentflow.memory_c' || c.id || '_hnsw') and i.indisvalid
"""
ALONE = "select pg_try_advisory_lock(hashtext('agentflow.memory_index'))"


@dataclass(frozen=True)
class VectorIndexes:
    """`indexed` is told which collections have an index; `elsewhere` names those that are searched outside Postgres."""

    connections: Connections
    indexed: set[int]
    elsewhere: Collection[str] = ()

    async def grow(self, *, large: int = LARGE) -> list[int]:
        """Build what is missing, one after the other; returns the collections. Raises DatabaseDown."""
        parameters = {"elsewhere": list(self.elsewhere), "large": large}
        async with self.connections.background() as connection:
            self.indexed.update(row[0] for row in await (await connection.execute(INDEXED)).fetchall())
            rows = await (await connection.execute(LARGE_ONES, parameters)).fetchall()
        built = []
        for collection, dim, name, items in rows:
            if collection not in self.indexed:
                log.info("a collection gets a vector index", collection=name)
                if await build(self.connections, collection, dim, items=items):
                    built.append(collection)
        self.indexed.update(built)
        return built


async def build(connections: Connections, collection: int, dim: int, *, items: int = 0) -> bool:
    """Index a collection's vectors; writers and readers go on. False if it is there, or another process builds.

    What a killed process left half-built is built again. A graph that outgrows its memory is built many times slower
    (1 GB held 770,000 vectors of 384 dimensions), so `items` says how much it may take; Postgres takes what it needs.
    """
    name = sql.Identifier("agentflow", f"memory_c{collection}_hnsw")
    async with connections.maintenance() as connection:
        alone = await (await connection.execute(ALONE)).fetchone()
        found = await (await connection.execute(FOUND.encode(), {"collection": collection})).fetchone()
        if not alone or not alone[0] or found is None or found[0]:
            return False
        megabytes = min(512 + items * (2 * dim + 900) // 2**20, MOST_MEMORY)
        await connection.execute(
            f"set statement_timeout = 0; set maintenance_work_mem = '{megabytes}MB'".encode()
        )
        await connection.execute(sql.SQL(DROP).format(index=name))
        script = sql.SQL(BUILD).format(
            index=sql.Identifier(f"memory_c{collection}_hnsw"),
            table=sql.Identifier(*found[1].split(".")),
            dim=sql.Literal(dim),
            collection=sql.Literal(collection),
        )
        await connection.execute(script)
    return True
