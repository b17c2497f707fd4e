"""Commands to a thread, as clients of the event protocol send them: begin, answer, look, go back."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from agentflow.api.once import key_of
from agentflow.api.protocol.threads import owned
from agentflow.api.protocol.wire import (
    Given,
    ProtocolRoute,
    answer,
    described,
    detail,
    owner,
    raw,
    services,
    shaped,
    uuid_of,
    who,
)
from agentflow.errors import AgentflowError, BadInput, Conflict, NotFound
from agentflow.runs.agents import agents
from agentflow.runs.checkpoints import listed, space
from agentflow.runs.telling import MODES
from agentflow.runs.thread_events import before
from agentflow.runs.wanted import Config, RunWanted, planned
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["events"])
Namespace = Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=32)]


class Command(Given):
    id: int | str
    method: str = Field(max_length=64)
    params: Json = Field(default_factory=dict)


class Reply(Given):
    interrupt_id: str = Field(max_length=256)
    response: Any = None


class Responses(Given):
    responses: list[Reply] = Field(default_factory=list, max_length=64)
    update: Json | None = None
    goto: Any = None
    config: Json | None = None
    metadata: Json | None = None


class Injected(Given):
    """A message of a person, or of the application, to an agent that may be at work."""

    role: Literal["user", "system"] = "user"
    content: str
    name: str | None = Field(None, max_length=256)


class Injection(Given):
    namespace: Namespace = Field(default_factory=list)
    message: Injected


class StateWanted(Given):
    namespace: Namespace = Field(default_factory=list)
    keys: list[str] | None = None


class CheckpointsWanted(Given):
    namespace: Namespace = Field(default_factory=list)
    limit: int = Field(10, ge=1, le=1000)
    before: str | None = Field(None, max_length=256)


class ForkWanted(Given):
    checkpoint_id: str = Field(max_length=256)
    input: Any = None
    config: Config | None = None


class TreeWanted(Given):
    run_id: str | None = None


class NoSuchInterrupt(BadInput):
    """Nothing waits for this answer."""


class NoSuchCheckpoint(BadInput):
    """The thread has no such place to go back to."""


class NoSuchNamespace(BadInput):
    """The agent is one; there is nobody within to speak to."""


@router.post(
    "/threads/{thread_id}/commands",
    summary="A command to a thread",
    response_model=None,
    responses={400: {"description": "No command."}},
    openapi_extra=described(Command),
)
async def command(request: Request, thread_id: str) -> Response:
    thread = uuid_of(thread_id, "thread_id")
    try:
        body = shaped(found, Command) if isinstance(found := await raw(request), dict) else None
    except BadInput as error:
        return detail(400, error.message)
    if body is None:
        return detail(400, "A command is an object of id, method and params.")
    try:
        return answer(await obeyed(request, thread, body, key_of(request)))
    except BadInput as error:
        return detail(400, error.message)


async def obeyed(request: Request, thread_id: str, body: Command, key: str | None = None) -> Json:
    """A command's answer; what goes wrong is one too. `key` is an idempotency key."""
    done = DONE.get(body.method)
    if done is None:
        return failed(body.id, "unknown_command", f"There is no command {body.method!r}.")
    try:
        return {"type": "success", "id": body.id, **await done(request, thread_id, body.params, key)}
    except AgentflowError as error:
        return failed(body.id, _code(error), error.message)


async def start(request: Request, thread_id: str, params: Json, key: str | None) -> Json:
    """Begin a run; the thread is made where there is none. A checkpoint to fork from is in the config.

    Clients of SDK 1.11 and older say what shall become of a run under way in camel case.
    """
    if params.get("multitaskStrategy") is not None:
        params = {"multitask_strategy": params["multitaskStrategy"], **params}
    body = shaped({"if_not_exists": "create", **params}, RunWanted)
    place = ((body.config or {}).get("configurable") or {}).get("checkpoint_id")
    body.checkpoint_id = body.checkpoint_id or (str(place) if place else None)
    return await _begun(request, thread_id, body, key)


async def respond(request: Request, thread_id: str, params: Json, key: str | None) -> Json:
    """Answer an interrupt, or several at once."""
    body = shaped(params, Responses)
    me, served = who(request), services(request)
    thread = await served.threads.get(thread_id, tenant=me.tenant, user=me.user)
    waiting = {one["id"] for found in thread["interrupts"].values() for one in found}
    given = {one.interrupt_id: one.response for one in body.responses or [shaped(params, Reply)]}
    known = key and await served.worker.ledger.with_key(key, tenant=me.tenant, user=me.user)
    for wanted in given:
        if wanted not in waiting and not known:
            raise NoSuchInterrupt(f"No interrupt {wanted!r} waits in this thread.")
    command = {"resume": given, "update": body.update, "goto": body.goto}
    wanted_run = {"command": command, "config": body.config, "metadata": body.metadata}
    return await _begun(request, thread_id, shaped({**_agent_of(thread), **wanted_run}, RunWanted), key)


async def inject(request: Request, thread_id: str, params: Json, key: str | None) -> Json:
    """A message out of turn. A run takes no more input once it has begun, so the next one answers it."""
    body = shaped(params, Injection)
    if body.namespace:
        raise NoSuchNamespace("A message reaches the whole agent; leave namespace empty.", field="namespace")
    thread = await owned(request, thread_id)
    given = {"messages": [body.message.model_dump(exclude_none=True)]}
    return await _begun(request, thread_id, shaped({**_agent_of(thread), "input": given}, RunWanted), key)


async def state(request: Request, thread_id: str, params: Json, _key: str | None) -> Json:
    """The thread's values now, or those that are asked for; with a namespace, a subgraph's."""
    body = shaped(params, StateWanted)
    found = await services(request).states.get(
        await owned(request, thread_id), checkpoint=space(body.namespace)
    )
    values = {key: one for key, one in found["values"].items() if body.keys is None or key in body.keys}
    place = {"checkpoint": {"id": found["checkpoint_id"]}} if found["checkpoint_id"] else {}
    return {"result": {"values": values, **place}}


async def checkpoints(request: Request, thread_id: str, params: Json, _key: str | None) -> Json:
    """The places of the thread's history, newest first, without what was known there."""
    body = shaped(params, CheckpointsWanted)
    states = await services(request).states.history(
        await owned(request, thread_id), limit=body.limit + 1, metadata=None, checkpoint=space(body.namespace),
        before=None if body.before is None else {"checkpoint_id": body.before},
    )  # fmt: skip
    return {"result": {"checkpoints": listed(states)[: body.limit]}}


async def fork(request: Request, thread_id: str, params: Json, key: str | None) -> Json:
    """Go on from an earlier place of the thread: with the input, or without one as it went on then."""
    body = shaped(params, ForkWanted)
    thread = await owned(request, thread_id)
    found = await services(request).states.get(thread, checkpoint={"checkpoint_id": body.checkpoint_id})
    if found["checkpoint"] is None:
        raise NoSuchCheckpoint(
            f"This thread has no checkpoint {body.checkpoint_id!r}.",
            field="checkpoint_id",
            value=body.checkpoint_id,
        )
    run = shaped({**_agent_of(thread), **body.model_dump(exclude_none=True)}, RunWanted)
    begun = await _begun(request, thread_id, run, key)
    return {**begun, "result": {**begun["result"], "thread_id": thread_id}}


async def tree(request: Request, thread_id: str, params: Json, _key: str | None) -> Json:
    """The agent and its subgraphs in a run, the last one if none is named, and how far each has come."""
    body = shaped(params, TreeWanted)
    wanted = None if body.run_id is None else uuid_of(body.run_id, "run_id")
    await owned(request, thread_id)
    found = await agents(services(request).thread_streams, owner(request), thread_id, wanted)
    if found is None:
        raise NotFound("The thread has no such run.", field="run_id", value=body.run_id)
    return {"result": {"tree": found}}


DONE = {
    "run.start": start,
    "input.respond": respond,
    "input.inject": inject,
    "state.get": state,
    "state.listCheckpoints": checkpoints,
    "state.fork": fork,
    "agent.getTree": tree,
}


async def _begun(request: Request, thread_id: str, body: RunWanted, key: str | None) -> Json:
    """Its events are logged: any process may be asked for them, also later."""
    body.stream_mode, body.stream_subgraphs, body.stream_resumable = list(MODES), True, True
    me, served = who(request), services(request)
    new = await planned(served, body, me.tenant, me.user, thread_id, streams=True, key=key)
    run, feed = await served.worker.submit(replace(new, told=True))
    place = feed.place or await served.thread_streams.place(owner(request), run["run_id"])
    return {"result": {"run_id": run["run_id"]}, "meta": {"applied_through_seq": before(place)}}


def _agent_of(thread: Json) -> Json:
    """The assistant that the thread belongs to, for commands that name none. Raises BadInput."""
    found = (thread["metadata"] or {}).get("assistant_id")
    if not found:
        raise BadInput("The thread has no agent yet; begin with run.start.", field="thread_id")
    return {"assistant_id": found}


def failed(ident: int | str | None, code: str, message: str) -> Json:
    return {"type": "error", "id": ident, "error": code, "message": message}


CODES: tuple[tuple[type[AgentflowError], str], ...] = (
    (NoSuchInterrupt, "no_such_interrupt"),
    (NoSuchCheckpoint, "no_such_checkpoint"),
    (NoSuchNamespace, "no_such_namespace"),
    (Conflict, "conflict"),
    (BadInput, "invalid_argument"),
)


def _code(error: AgentflowError) -> str:
    return next((code for kind, code in CODES if isinstance(error, kind)), "no_such_run")
