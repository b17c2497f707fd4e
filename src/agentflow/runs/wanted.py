"""What a client asks of a run, and the run to be accepted for it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agentflow.egress import Egress
from agentflow.errors import BadInput, NotFound
from agentflow.protocols import Owner
from agentflow.records.protocol.accepting import NewRun
from agentflow.records.protocol.assistants import Assistants
from agentflow.runs.conversation import Conversation, said_last
from agentflow.runs.registry import OWN, Registry, assistant_of
from agentflow.turn import Json

Mode = Literal[
    "values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events",
    "tools",
]  # fmt: skip
DAY = 24 * 3600
META_BYTES = 16 * 1024
PLACE = ("thread_id", "checkpoint_id", "checkpoint_ns")


def _named(given: Json) -> Json:
    """A checkpoint, or a config that holds one. Raises ValueError unless ids are texts."""
    inner = given.get("configurable", given)
    if not isinstance(inner, dict) or not all(isinstance(inner.get(name), str | None) for name in PLACE):
        raise ValueError("thread_id, checkpoint_id and checkpoint_ns are texts")
    if not isinstance(inner.get("checkpoint_map"), dict | None):
        raise ValueError("checkpoint_map is an object")  # noqa: TRY004 pydantic hears ValueError
    return given


def _configured(given: Json) -> Json:
    """Settings of a run. Raises ValueError where LangGraph would break over them."""
    if not isinstance(given.get("configurable"), dict | None):
        raise ValueError("configurable is an object")  # noqa: TRY004 pydantic hears ValueError
    return given


Config = Annotated[Json, AfterValidator(_configured)]
Checkpoint = Annotated[Json, AfterValidator(_named)]
"""A place in a thread's history, as clients name it."""


class RunWanted(BaseModel):
    """A run as clients of any version ask for it; what we do not know is ignored."""

    model_config = ConfigDict(extra="ignore")

    assistant_id: str = Field(min_length=1, max_length=256)
    input: Any = None
    command: Json | None = None
    config: Config | None = None
    context: Json | None = None
    metadata: Json | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_id: str | None = None
    stream_mode: Mode | list[Mode] | None = None
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    interrupt_before: Literal["*"] | list[str] | None = None
    interrupt_after: Literal["*"] | list[str] | None = None
    multitask_strategy: Literal["enqueue", "reject", "interrupt", "rollback"] = "enqueue"
    if_not_exists: Literal["reject", "create"] = "reject"
    on_disconnect: Literal["continue", "cancel"] = "continue"
    on_completion: Literal["delete", "keep"] = "delete"
    after_seconds: float = Field(0, ge=0, le=30 * DAY)
    webhook: str | None = Field(None, max_length=2048)
    durability: Literal["sync", "async", "exit"] | None = None


class Served(Protocol):
    """What planning needs of the services."""

    @property
    def registry(self) -> Registry: ...
    @property
    def assistants(self) -> Assistants: ...
    @property
    def egress(self) -> Egress: ...
    @property
    def conversation(self) -> Conversation: ...


async def planned(  # noqa: PLR0913 - what a request says, one by one
    served: Served,
    body: RunWanted,
    tenant: int,
    user: str,
    thread_id: str | None,
    *,
    streams: bool,
    key: str | None = None,
    remembered: bool = False,
) -> NewRun:
    """What is asked for as a run to be accepted; `key` is an idempotency key.

    With `remembered` the assistant may be an outdated one, which accepting the run finds out.
    Raises BadInput, and AddressRefused for the webhook.
    """
    chosen = await _assistant(served, body.assistant_id, tenant, remembered=remembered)
    if body.webhook is not None:
        await served.egress.check(body.webhook, field="webhook")
    new = NewRun(
        graph=chosen["graph_id"],
        assistant_id=chosen["assistant_id"],
        work=_work(body, chosen, stateless=thread_id is None, streams=streams, kept=key is not None),
        tenant=tenant,
        user=user,
        thread_id=thread_id,
        create=body.if_not_exists == "create",
        meta=small(body.metadata),
        thread_meta={"graph_id": chosen["graph_id"], "assistant_id": chosen["assistant_id"]},
        multitask=body.multitask_strategy,
        after=body.after_seconds,
        watched=True,
        key=key,
        fingerprint=b"" if key is None else _fingerprint(body, thread_id),
        planned=chosen["updated_at"] if remembered else None,
    )
    if chosen["graph_id"] == OWN:
        return await _as_turn(served, new)
    await _there(served, new)
    return new


async def found_assistant(served: Served, name: str, tenant: int, *, remembered: bool = False) -> Json:
    """An assistant by its id, or a graph's own by the graph's name. Raises NotFound."""
    get = served.assistants.remembered if remembered else served.assistants.get
    if name in served.registry.ids:
        return await get(tenant, assistant_of(name))
    try:
        wanted = str(UUID(name))
    except ValueError:
        known = ", ".join(served.registry.ids)
        message = f"There is no assistant {name[:80]!r}. Graphs: {known}."
        raise NotFound(message, field="assistant_id", value=name) from None
    return await get(tenant, wanted)


def small(meta: Mapping[str, Any] | None) -> Json:
    """Metadata within its limit. Raises BadInput."""
    if meta and len(str(meta)) > META_BYTES:
        raise BadInput(f"metadata is larger than {META_BYTES} bytes.", field="metadata")
    return dict(meta or {})


async def _there(served: Served, new: NewRun) -> None:
    """LangGraph would begin with nothing at a checkpoint that is gone. Raises BadInput."""
    place = (new.work.get("checkpoint") or {}).get("checkpoint_id")
    if place is None or new.thread_id is None:
        return
    if not await served.conversation.threaded.holds(Owner(new.tenant, new.user), new.thread_id, place):
        message = (
            f"This thread has no checkpoint {place[:80]}, or no longer; its last state can be gone on from."
        )
        raise BadInput(message, field="checkpoint", value=place)


def _in_one_piece(work: Json) -> None:
    """A turn is accepted, answered and remembered as a whole. Raises BadInput for what would stop it midway."""
    for field in ("interrupt_before", "interrupt_after", "command"):
        if work.get(field):
            raise BadInput(
                f"{field} is not possible in {OWN!r}: its turns never wait halfway. Send input.messages, or serve a "
                "graph of your own beside it.",
                field=field,
            )


async def _assistant(served: Served, name: str, tenant: int, *, remembered: bool) -> Json:
    """As in a path, but an unknown one in a body is bad input."""
    try:
        return await found_assistant(served, name, tenant, remembered=remembered)
    except NotFound as error:
        raise BadInput(error.message, field="assistant_id", value=name) from None


def _modes(body: RunWanted, *, streams: bool) -> list[str]:
    """The modes whose events shall be told; a run that is only waited for needs none."""
    if body.stream_mode is None:
        return ["values"] if streams else []
    return list(body.stream_mode) if isinstance(body.stream_mode, list) else [body.stream_mode]


def _fingerprint(body: RunWanted, thread_id: str | None) -> bytes:
    """What an idempotency key stands for: the body as it was understood, and the thread."""
    told = json.dumps([thread_id, body.model_dump()], sort_keys=True)
    return sha256(told.encode()).digest()


def _work(body: RunWanted, chosen: Json, *, stateless: bool, streams: bool, kept: bool) -> Json:
    config = body.config or {}
    if body.context and config.get("configurable"):
        raise BadInput("Give settings in context or in config.configurable, not in both.", field="context")
    configurable = {**(chosen["config"].get("configurable") or {}), **(config.get("configurable") or {})}
    place = dict(body.checkpoint or {})
    if body.checkpoint_id:
        place["checkpoint_id"] = body.checkpoint_id
    # Whom to tell is known until it is told, and what a key stands for as long as it may come again.
    kept = kept or body.webhook is not None or body.on_completion == "keep"
    leaves_nothing = stateless and not kept
    ours = chosen["graph_id"] == OWN
    work = {
        "assistant_id": chosen["assistant_id"],
        "input": body.input,
        "command": body.command,
        "config": {**chosen["config"], **config, "configurable": configurable},
        "context": {**chosen["context"], **(body.context or {})},
        "metadata": body.metadata,
        "checkpoint": {key: place[key] for key in ("checkpoint_id", "checkpoint_ns") if place.get(key)},
        "stream_mode": _modes(body, streams=streams),
        "stream_subgraphs": body.stream_subgraphs,
        "stream_resumable": body.stream_resumable,
        "interrupt_before": body.interrupt_before,
        "interrupt_after": body.interrupt_after,
        "on_completion": "delete" if leaves_nothing else None,
        "webhook": body.webhook,
        "durability": body.durability or ("exit" if stateless or ours else None),
    }
    return {key: value for key, value in work.items() if value or key == "input"}


async def _as_turn(served: Served, new: NewRun) -> NewRun:
    """A run of our own graph is a turn: its message goes to the ledger.

    At a checkpoint it begins a branch there; without input the answer to the last message there is given again.
    Raises BadInput.
    """
    owner, thread = Owner(new.tenant, new.user), new.thread_id
    _in_one_piece(new.work)
    given, place = new.work.get("input"), (new.work.get("checkpoint") or {}).get("checkpoint_id")
    if thread is not None and not given:
        fork, text, meta, role = await served.conversation.again(owner, thread, place)
        work = {**new.work, "again": fork.again}
        return replace(new, text=text, message_meta=meta, wanted_role=role, follows=fork.follows, work=work)
    text, meta, role = said_last(given)
    if not text.strip():
        raise BadInput("The message is empty; say something.", field="input.messages")
    new = replace(new, text=text, message_meta=meta, wanted_role=role)
    if thread is None or place is None:
        return new
    return replace(new, follows=(await served.conversation.forked(owner, thread, place)).follows)
