"""The schema that all tables share, and the columns that many of them have."""

from typing import Any

from sqlalchemy import Column, DateTime, ForeignKey, Integer, MetaData, Sequence, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "agentflow"
metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_ix",
        "uq": "%(table_name)s_%(column_0_N_name)s_uq",
        "ck": "%(table_name)s_%(constraint_name)s_ck",
        "fk": "%(table_name)s_%(column_0_N_name)s_fk",
        "pk": "%(table_name)s_pk",
    },
)
session_seq = Sequence("session_seq", metadata=metadata)
memory_id_seq = Sequence("memory_id_seq", metadata=metadata)


def tenant() -> Column[int]:
    return Column("tenant", Integer, nullable=False, server_default=text("0"))


def user_ref() -> Column[str]:
    """Whose row it is; a statement that names its owner need not say so again."""
    return Column("user_ref", Text, nullable=False, server_default=text("agentflow.user_ref()"))


def collection_id() -> Column[int]:
    """Whose part it is: gone with the collection."""
    return Column(
        "collection_id", Integer, ForeignKey("agentflow.collection.id", ondelete="CASCADE"), nullable=False
    )


def meta() -> Column[Any]:
    return Column("meta", JSONB, nullable=False, server_default=text("'{}'"))


def at(name: str) -> Column[Any]:
    """A time, now unless it is given."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())
