"""Assistants in their versions, and runs by the clock; threads and runs of the protocol are those of turns.py."""

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from agentflow.tables.schema import at, meta, metadata, tenant

assistant = Table(
    "assistant",
    metadata,
    tenant(),
    Column("id", Uuid, nullable=False),
    Column("graph", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("config", JSONB, nullable=False, server_default=text("'{}'")),
    Column("context", JSONB, nullable=False, server_default=text("'{}'")),
    meta(),
    Column("version", Integer, nullable=False, server_default=text("1")),
    at("created_at"),
    at("updated_at"),
    PrimaryKeyConstraint("tenant", "id"),
)

assistant_version = Table(
    "assistant_version",
    metadata,
    tenant(),
    Column("assistant_id", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("graph", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("config", JSONB, nullable=False, server_default=text("'{}'")),
    Column("context", JSONB, nullable=False, server_default=text("'{}'")),
    meta(),
    at("created_at"),
    PrimaryKeyConstraint("tenant", "assistant_id", "version"),
    ForeignKeyConstraint(
        ["tenant", "assistant_id"],
        ["agentflow.assistant.tenant", "agentflow.assistant.id"],
        ondelete="CASCADE",
    ),
)

cron = Table(
    "cron",
    metadata,
    Column("id", Uuid, primary_key=True),
    tenant(),
    Column("user_ref", Text, nullable=False),
    Column("assistant_id", Uuid, nullable=False),
    Column("thread_id", Uuid, ForeignKey("agentflow.thread.id", ondelete="CASCADE")),
    Column("schedule", Text, nullable=False),
    Column("timezone", Text, nullable=False, server_default=text("'UTC'")),
    Column("work", JSONB, nullable=False, server_default=text("'{}'")),
    meta(),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("end_at", DateTime(timezone=True)),
    Column("next_at", DateTime(timezone=True)),
    at("created_at"),
    at("updated_at"),
)
Index("cron_user_ix", cron.c.tenant, cron.c.user_ref, cron.c.created_at)
