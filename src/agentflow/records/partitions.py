"""A large collection in a partition of its own, so that its vector index holds nothing else.

An index over several collections would be filtered after the search and find too little (pgvector's post-filtering);
a collection below some ten thousand memories is searched exactly, and as fast, without one.
"""

from psycopg import sql

from agentflow.records.connections import Connections

MOVE = """
alter table memory detach partition memory_default;
alter table memory_default no force row level security;
create table {name} (like memory including defaults including storage including constraints);
insert into {name} select * from memory_default where collection_id = {collection};
delete from memory_default where collection_id = {collection};
alter table {name} add constraint {dim_check} check (vector_dims(embedding) = {dim});
create index {index} on {name} using hnsw ((embedding::halfvec({dim})) halfvec_cosine_ops)
  with (m = 16, ef_construction = 64);
alter table memory_default force row level security;
alter table {name} enable row level security;
alter table {name} force row level security;
alter table memory attach partition memory_default default;
alter table memory attach partition {name} for values in ({collection});
analyze {name};
"""
OWN = "select to_regclass(%s) is not null"


async def set_apart(connections: Connections, collection: int, dim: int) -> bool:
    """Move a collection into a partition with a vector index; False if it has one. Writers wait meanwhile."""
    name = f"memory_c{collection}"
    async with connections.maintenance() as connection, connection.transaction():
        row = await (await connection.execute(OWN, (f"agentflow.{name}",))).fetchone()
        if row and row[0]:
            return False
        await connection.execute("set local statement_timeout = 0")
        await connection.execute("set local maintenance_work_mem = '512MB'")
        script = sql.SQL(MOVE).format(
            name=sql.Identifier(name),
            index=sql.Identifier(f"{name}_hnsw"),
            dim_check=sql.Identifier(f"{name}_dim"),
            collection=sql.Literal(collection),
            dim=sql.Literal(dim),
        )
        await connection.execute(script, prepare=False)
    return True
