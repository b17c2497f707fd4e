"""Alembic's entry: the caller passes an open connection in config.attributes["connection"]."""

from typing import Any, Literal

from alembic import context

from agentflow.tables import SCHEMA, metadata

Kind = Literal["schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint"]


def ours(name: str | None, kind: Kind, _parent: Any) -> bool:
    """Only our schema; partitions of memory are made by code, not by revisions."""
    if kind == "schema":
        return name == SCHEMA
    if kind == "table":
        return not (name or "").startswith("memory_")
    return True


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=ours,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
