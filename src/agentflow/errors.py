"""Every error that agentflow raises on purpose: one tree.

AgentflowError
├── ConfigError                 agentflow.yaml or the environment cannot be used
├── BadInput                    a request names something impossible
│   ├── UnknownRole
│   ├── UnknownCollection
│   ├── AddressRefused          no request may make us call there
│   └── TooLarge
├── NotFound                    no such turn or thread for this caller
├── Unauthorized                no credential, or one that opens nothing
├── Forbidden                   the credential lacks a scope
├── Conflict                    the same idempotency key with another request
├── Busy                        the thread or run is in use
├── TooMany                     a limit of what may wait or run is reached
├── AdapterError                an adapter cannot be used
│   ├── InvalidAdapter          its files fail validation; no engine has seen them
│   ├── FetchFailed             its source does not give it
│   ├── ColdAdapter             it is not ready within the time that the role allows
│   └── NoRoom                  a tier has no room that may be freed
├── EngineError                 the model server cannot answer
│   ├── EngineDown
│   ├── EngineTimeout
│   └── GenerationFailed
│       └── PromptRefused       too long, or a form that the engine does not know
├── Unreachable                 an address outside does not answer as it should
├── EmbedderError               texts cannot be turned into vectors
├── HomeDown                    the place of a collection's vectors cannot be reached
├── DatabaseError
│   ├── DatabaseDown
│   ├── DataFolderBusy          another process owns the embedded data folder
│   └── SchemaMismatch          the database belongs to another version or embedder
├── LeaseLost                   a newer attempt owns the turn; this one writes nothing more
├── TurnFailed                  an earlier attempt of this turn failed for good
├── GraphFailed                 a node of a served graph raised something of its own
└── StartError                  the server cannot start (port taken, missing extra)
"""


class AgentflowError(Exception):
    """Root of the tree. The message is one readable paragraph that names the way out.

    `field` and `value` name what was wrong where a request or file was; `retry_after`
    (seconds) says when the same request may succeed.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        value: object = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value
        self.retry_after = retry_after


class ConfigError(AgentflowError):
    """agentflow.yaml or the environment cannot be used as it is."""


class BadInput(AgentflowError):
    """A request carries a value that can never work."""


class UnknownRole(BadInput):
    """No role of this name in agentflow.yaml."""


class UnknownCollection(BadInput):
    """No collection of this name in agentflow.yaml."""


class AddressRefused(BadInput):
    """No request may make us call this address; `egress.allow` lists the exceptions."""


class TooLarge(BadInput):
    """A body or message is over its limit."""


class NotFound(AgentflowError):
    """There is no such turn or thread for this caller."""


class Unauthorized(AgentflowError):
    """No credential was shown, or one that opens nothing."""


class Forbidden(AgentflowError):
    """The credential does not reach this far."""


class Conflict(AgentflowError):
    """The idempotency key was used before for a different request."""


class Busy(AgentflowError):
    """The thread or run is in use, so this cannot be done now."""


class TooMany(AgentflowError):
    """A limit of what may wait or run at once is reached."""


class AdapterError(AgentflowError):
    """An adapter cannot be used."""


class InvalidAdapter(AdapterError):
    """An adapter's files fail validation; no engine has seen them."""


class FetchFailed(AdapterError):
    """The source of an adapter is not there, hangs, breaks off or lies about what it sends."""


class ColdAdapter(AdapterError):
    """An adapter is not ready within the time that its role allows; its load goes on."""


class NoRoom(AdapterError):
    """A tier has no room, and nothing in it may leave."""


class EngineError(AgentflowError):
    """The model server cannot answer."""


class EngineDown(EngineError):
    """Nothing answers at the engine's address, or the engine died."""


class EngineTimeout(EngineError):
    """The engine took longer than its time limit."""


class GenerationFailed(EngineError):
    """The engine refused or broke off this generation."""


class PromptRefused(GenerationFailed):
    """The engine refuses this prompt: it is too long, or asks for what the engine cannot do."""


class Unreachable(AgentflowError):
    """An address outside does not answer, or not as it should."""


class EmbedderError(AgentflowError):
    """Texts cannot be turned into vectors."""


class HomeDown(AgentflowError):
    """The place where a collection's vectors are searched cannot be reached; its words can."""


class DatabaseError(AgentflowError):
    """Postgres cannot be used."""


class DatabaseDown(DatabaseError):
    """Postgres does not answer."""


class DataFolderBusy(DatabaseError):
    """Another process owns the embedded data folder."""


class SchemaMismatch(DatabaseError):
    """The database belongs to another version of agentflow or to another embedder."""


class LeaseLost(AgentflowError):
    """A newer attempt owns the turn; this one stops and writes nothing more."""


class TurnFailed(AgentflowError):
    """The turn has failed for good; the message is the stored reason."""


class GraphFailed(AgentflowError):
    """A node of a served graph raised; `kind` is the name of what it raised."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class StartError(AgentflowError):
    """The server cannot start."""
