"""Our own Postgres, for those who bring none."""

from agentflow.records.embedded.server import EmbeddedOptions, EmbeddedPostgres, neighbour

__all__ = ["EmbeddedOptions", "EmbeddedPostgres", "neighbour"]
