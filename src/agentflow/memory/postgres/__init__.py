"""Memories in Postgres."""

from agentflow.memory.postgres.home import PostgresMemory

__all__ = ["PostgresMemory"]
