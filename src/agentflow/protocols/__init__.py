"""What the steps need of the world outside. Every protocol has a contract suite that fakes and real things pass."""

from agentflow.protocols.embedders import Embedder, Vectors
from agentflow.protocols.engines import Capabilities, Engine, EngineTier, Health, Loaded, Piece, Prompt, Said
from agentflow.protocols.intents import Classifier, Message
from agentflow.protocols.ledger import (
    Acceptance,
    Lease,
    Ledger,
    NewMemory,
    Outcome,
    Request,
    RunRecord,
    RunStatus,
)
from agentflow.protocols.limits import Allowance, Refusal, Spending
from agentflow.protocols.memory import MemoryHome, VectorHome
from agentflow.protocols.residency import Keeper, Outlook
from agentflow.protocols.scopes import DOCUMENTS, Beside, Owner, Scope, own_scopes, searched_scopes
from agentflow.protocols.sources import RemoteFile, Source

__all__ = [
    "DOCUMENTS",
    "Acceptance",
    "Allowance",
    "Beside",
    "Capabilities",
    "Classifier",
    "Embedder",
    "Engine",
    "EngineTier",
    "Health",
    "Keeper",
    "Lease",
    "Ledger",
    "Loaded",
    "MemoryHome",
    "Message",
    "NewMemory",
    "Outcome",
    "Outlook",
    "Owner",
    "Piece",
    "Prompt",
    "Refusal",
    "RemoteFile",
    "Request",
    "RunRecord",
    "RunStatus",
    "Said",
    "Scope",
    "Source",
    "Spending",
    "VectorHome",
    "Vectors",
    "own_scopes",
    "searched_scopes",
]
