"""The event protocol of newer clients: commands to a thread, and its numbered events over SSE or a WebSocket."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from pydantic import Field
from starlette.responses import Response

from agentflow.api.origins import welcome
from agentflow.api.protocol.runs import KEEP_ALIVE
from agentflow.api.protocol.stream import HEARTBEAT, sse
from agentflow.api.protocol.wire import (
    Given,
    ProtocolRoute,
    answer,
    described,
    detail,
    given,
    raw,
    services,
    shaped,
    uuid_of,
    who,
)
from agentflow.errors import AgentflowError, BadInput
from agentflow.runs.events import Behind
from agentflow.runs.thread_log import MODES, ThreadLog, Wanted
from agentflow.runs.wanted import RunWanted, planned
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["events"])


class Command(Given):
    id: int | str
    method: str = Field(max_length=64)
    params: Json = Field(default_factory=dict)


class Subscription(Given):
    channels: list[str] = Field(default_factory=list, max_length=64)
    namespaces: list[list[str]] | None = Field(None, max_length=64)
    depth: int | None = Field(None, ge=0, le=32)
    since: int = Field(0, ge=0)


def log_of(request: Any, thread_id: str) -> ThreadLog:
    """The caller's log of a thread: the same id of somebody else is another log."""
    me = who(request)
    return services(request).logs.of(f"{me.tenant} {me.user}", thread_id)


@router.post(
    "/threads/{thread_id}/commands",
    summary="A command to a thread",
    response_model=None,
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
    done = {"run.start": start, "input.respond": respond}.get(body.method)
    if done is None:
        return failed(body, "unknown_command", f"There is no command {body.method!r}.")
    try:
        return answer({"type": "success", "id": body.id, **await done(request, thread, body.params)})
    except AgentflowError as error:
        return failed(body, _code(error), error.message)


async def start(request: Request, thread_id: str, params: Json) -> Json:
    """Begin a run; the thread is made where there is none."""
    body = shaped({"if_not_exists": "create", **params}, RunWanted)
    return await _begun(request, thread_id, body)


async def respond(request: Request, thread_id: str, params: Json) -> Json:
    """Answer an interrupt."""
    me, served = who(request), services(request)
    thread = await served.threads.get(thread_id, tenant=me.tenant, user=me.user)
    waiting = [one["id"] for found in thread["interrupts"].values() for one in found]
    wanted = params.get("interrupt_id")
    if wanted not in waiting:
        raise NoSuchInterrupt(f"No interrupt {wanted!r} waits in this thread.")
    resume = {wanted: params.get("response")}
    body = RunWanted(assistant_id=thread["metadata"]["assistant_id"], command={"resume": resume})
    return await _begun(request, thread_id, body)


class NoSuchInterrupt(BadInput):
    """Nothing waits for this answer."""


async def _begun(request: Request, thread_id: str, body: RunWanted) -> Json:
    body.stream_mode, body.stream_subgraphs = list(MODES), True
    me, served = who(request), services(request)
    new = await planned(served, body, me.tenant, me.user, thread_id, streams=True)
    log = log_of(request, thread_id)
    through = log.stream.last
    run, feed = await served.worker.submit(new)
    served.logs.follow(log, feed, new.graph)
    return {"result": {"run_id": run["run_id"]}, "meta": {"applied_through_seq": through}}


def failed(body: Command, code: str, message: str) -> Response:
    return answer({"type": "error", "id": body.id, "error": code, "message": message})


def _code(error: AgentflowError) -> str:
    if isinstance(error, NoSuchInterrupt):
        return "no_such_interrupt"
    return "invalid_argument" if isinstance(error, BadInput) else "no_such_run"


@router.post(
    "/threads/{thread_id}/stream/events",
    summary="A thread's numbered events",
    response_model=None,
    openapi_extra=described(Subscription),
)
async def events(request: Request, thread_id: str) -> Response:
    log = log_of(request, uuid_of(thread_id, "thread_id"))
    return sse(_framed(log, await given(request, Subscription)), {})


async def _framed(log: ThreadLog, body: Subscription) -> AsyncIterator[bytes]:
    async for event in _heard(log, body):
        if event is None:
            yield HEARTBEAT
        else:
            yield b"id: %d\nevent: %s\ndata: %s\n\n" % (
                event["seq"],
                event["method"].encode(),
                orjson.dumps(event),
            )


async def _heard(log: ThreadLog, body: Subscription) -> AsyncIterator[Json | None]:
    """What the subscriber wants, and None as a sign of life; stays open across runs."""
    spaces = tuple(tuple(one) for one in body.namespaces or ())
    wanted = Wanted(frozenset(body.channels), spaces, body.depth)
    try:
        async for found in log.stream.follow(max(body.since, log.stream.first - 1), idle=KEEP_ALIVE):
            for one in found:
                event = orjson.loads(one.data)
                if wanted.takes(event):
                    yield event
            if not found:
                yield None
    except Behind:
        return


@router.websocket("/threads/{thread_id}/stream/events")
async def socket(websocket: WebSocket, thread_id: str) -> None:
    """The same over a WebSocket: the first frame subscribes."""
    if not welcome(websocket, websocket.app.state.services.settings.server.origins):
        await websocket.close(4403)
        return
    await websocket.accept()
    try:
        thread = uuid_of(thread_id, "thread_id")
        frame = orjson.loads(await websocket.receive_text())
        body = shaped(frame.get("params") or {}, Subscription)
        await websocket.send_text(
            orjson.dumps({"type": "success", "id": frame.get("id"), "result": {}}).decode()
        )
        async for event in _heard(log_of(websocket, thread), body):
            if event is not None:
                await websocket.send_text(orjson.dumps(event).decode())
    except AgentflowError as error:
        await websocket.close(4400, error.message[:120])
    except (WebSocketDisconnect, orjson.JSONDecodeError, AttributeError):
        return
