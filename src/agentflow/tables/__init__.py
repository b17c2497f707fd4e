"""The database as SQLAlchemy Core metadata, read by migrations/env.py; statements live in records/ and memory/.

Each module tells what the codes and columns of its tables mean.
"""

from agentflow.tables import access, memories, protocol, search, turns
from agentflow.tables.schema import SCHEMA, metadata

__all__ = ["SCHEMA", "access", "memories", "metadata", "protocol", "search", "turns"]
