"""Memories as doors deal with them: the owner's rights, documents."""

from dataclasses import dataclass

from agentflow.documents.apart import Reader
from agentflow.records.connections import Connections
from agentflow.records.forget import Forgetting
from agentflow.records.holdings import Holdings
from agentflow.records.library import Library
from agentflow.records.portable import Portable
from agentflow.records.retention import Retention
from agentflow.records.rights import Rights
from agentflow.records.scopes import Scopes
from agentflow.records.summaries import Summaries
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
