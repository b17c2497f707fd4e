"""Places outside Postgres where vectors are searched, and the log of changes that they read."""

import sqlalchemy as sa
from alembic import op

from agentflow.records.ownership import expose, protect

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Statement triggers on the parent: moving rows between partitions changes no vector and is not seen here.
CHANGED = """
create function agentflow.vectors_changed() returns trigger language plpgsql as $$
begin
  if not exists (select from agentflow.vector_place) then
    return null;
  end if;
  if tg_op = 'INSERT' then
    insert into agentflow.vector_log (tenant, collection_id, scope_id, item_id)
    select n.tenant, n.collection_id, n.scope_id, n.id from fresh n
    where n.embedding is not null
      and exists (select from agentflow.vector_place p where p.collection_id = n.collection_id);
  elsif tg_op = 'DELETE' then
    insert into agentflow.vector_log (tenant, collection_id, scope_id, item_id)
    select o.tenant, o.collection_id, o.scope_id, o.id from former o
    where o.embedding is not null
      and exists (select from agentflow.vector_place p where p.collection_id = o.collection_id);
  else
    insert into agentflow.vector_log (tenant, collection_id, scope_id, item_id)
    select o.tenant, o.collection_id, o.scope_id, o.id
    from former o left join fresh n on n.collection_id = o.collection_id and n.id = o.id
    where (o.embedding is distinct from n.embedding or o.scope_id <> n.scope_id)
      and exists (select from agentflow.vector_place p where p.collection_id = o.collection_id);
    insert into agentflow.vector_log (tenant, collection_id, scope_id, item_id)
    select n.tenant, n.collection_id, n.scope_id, n.id
    from fresh n join former o on n.collection_id = o.collection_id and n.id = o.id
    where n.scope_id <> o.scope_id and n.embedding is not null
      and exists (select from agentflow.vector_place p where p.collection_id = n.collection_id);
  end if;
  return null;
end $$
"""
TRIGGERS = {
    "insert": "referencing new table as fresh",
    "update": "referencing old table as former new table as fresh",
    "delete": "referencing old table as former",
}


def upgrade() -> None:
    op.create_table(
        "vector_place",
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lasting", sa.Boolean(), nullable=False),
        sa.Column("serving", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("filled", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("born", sa.BigInteger(), nullable=True),
        sa.Column("written", sa.BigInteger(), nullable=False),
        sa.Column("log_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("items", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["agentflow.collection.id"],
            name=op.f("vector_place_collection_id_fk"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection_id", "place", name=op.f("vector_place_pk")),
        schema="agentflow",
    )
    op.create_table(
        "vector_log",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("scope_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "written",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("vector_log_pk")),
        schema="agentflow",
    )
    op.create_index(
        "vector_log_order_ix",
        "vector_log",
        ["collection_id", "written", "id"],
        unique=False,
        schema="agentflow",
    )
    protect(op.execute, "vector_place", "tenant")
    protect(op.execute, "vector_log", "tenant")
    op.execute(CHANGED)
    for event, tables in TRIGGERS.items():
        op.execute(
            f"create trigger vectors_changed_{event} after {event} on agentflow.memory {tables} "
            "for each statement execute function agentflow.vectors_changed()"
        )


def downgrade() -> None:
    for event in TRIGGERS:
        op.execute(f"drop trigger vectors_changed_{event} on agentflow.memory")
    op.execute("drop function agentflow.vectors_changed")
    for table in ("vector_log", "vector_place"):
        expose(op.execute, table)
    op.drop_table("vector_log", schema="agentflow")
    op.drop_table("vector_place", schema="agentflow")
