"""Memories as doors deal with them: the owner's rights, documents."""

from dataclasses import dataclass

from agentflow.documents.apart import Reader
from agentflow.records.connections import Connections
from agentflow.records.memory.forget import Forgetting
from agentflow.records.memory.holdings import Holdings
from agentflow.records.memory.library import Library
from agentflow.records.memory.portable import Portable
from agentflow.records.memory.retention import Retention
from agentflow.records.memory.rights import Rights
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.summaries import Summaries
from agentflow.settings.schema import MemorySettings


@dataclass(frozen=True)
class Memories:
    """What owners may do with memories, and how documents become some."""

    rights: Rights
    forgetting: Forgetting
    portable: Portable
    library: Library
    reader: Reader
    holdings: Holdings
    retention: Retention
    summaries: Summaries

    @classmethod
    def over(
        cls, connections: Connections, scopes: Scopes, memory: MemorySettings, process: str
    ) -> "Memories":
        forgetting = Forgetting(connections, process)
        return cls(
            Rights(connections, scopes),
            forgetting,
            Portable(connections, scopes),
            Library(connections, scopes),
            Reader(),
            Holdings(connections),
            Retention(connections, forgetting, scopes.collections, memory.keep_checkpoints),
            Summaries(connections, scopes, memory.session_pause),
        )
