"""The event protocol of newer clients: commands to a thread, and its numbered events over SSE or a WebSocket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from pydantic import Field
from starlette.responses import Response

from agentflow.api.bodies import parsed
from agentflow.api.origins import welcome
from agentflow.api.protocol.runs import KEEP_ALIVE, key_of
from agentflow.api.protocol.stream import HEARTBEAT, sse
from agentflow.api.protocol.threads import owned
from agentflow.api.protocol.wire import (
    Given,
    ProtocolRoute,
    answer,
    described,
    detail,
    given,
    owner,
    raw,
    services,
    shaped,
    uuid_of,
    who,
)
from agentflow.api.sse import Events
from agentflow.ending import end
from agentflow.errors import AgentflowError, BadInput, Conflict
from agentflow.runs.encoding import encoded
from agentflow.runs.events import Behind
from agentflow.runs.telling import MODES, Wanted
from agentflow.runs.thread_events import before, told
from agentflow.runs.wanted import RunWanted, planned
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["events"])
SUBSCRIPTIONS = 64
"""Of one WebSocket."""


class Command(Given):
    id: int | str
    method: str = Field(max_length=64)
    params: Json = Field(default_factory=dict)


class Subscription(Given):
    channels: list[str] = Field(default_factory=list, max_length=64)
    namespaces: list[list[str]] | None = Field(None, max_length=64)
    depth: int | None = Field(None, ge=0, le=32)
    since: int = Field(0, ge=0, lt=1 << 53)


class Reply(Given):
    interrupt_id: str = Field(max_length=256)
    response: Any = None


class Responses(Given):
    responses: list[Reply] = Field(default_factory=list, max_length=64)
    update: Json | None = None
    goto: Any = None
    config: Json | None = None
    metadata: Json | None = None


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
    done = {"run.start": start, "input.respond": respond, "state.get": state}.get(body.method)
    if done is None:
        return failed(body.id, "unknown_command", f"There is no command {body.method!r}.")
    try:
        return {"type": "success", "id": body.id, **await done(request, thread_id, body.params, key)}
    except AgentflowError as error:
        return failed(body.id, _code(error), error.message)


async def start(request: Request, thread_id: str, params: Json, key: str | None) -> Json:
    """Begin a run; the thread is made where there is none. A checkpoint to fork from is in the config."""
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
    run = shaped({"assistant_id": thread["metadata"]["assistant_id"], **wanted_run}, RunWanted)
    return await _begun(request, thread_id, run, key)


async def state(request: Request, thread_id: str, params: Json, _key: str | None) -> Json:
    """The thread's values now, or those that are asked for."""
    found = await services(request).states.get(await owned(request, thread_id))
    keys = params.get("keys")
    values = {key: one for key, one in found["values"].items() if not isinstance(keys, list) or key in keys}
    place = {"checkpoint": {"id": found["checkpoint_id"]}} if found["checkpoint_id"] else {}
    return {"result": {"values": values, **place}}


class NoSuchInterrupt(BadInput):
    """Nothing waits for this answer."""


async def _begun(request: Request, thread_id: str, body: RunWanted, key: str | None) -> Json:
    """Its events are logged: any process may be asked for them, also later."""
    body.stream_mode, body.stream_subgraphs, body.stream_resumable = list(MODES), True, True
    me, served = who(request), services(request)
    new = await planned(served, body, me.tenant, me.user, thread_id, streams=True, key=key)
    run, feed = await served.worker.submit(replace(new, told=True))
    place = feed.place or await served.thread_streams.place(owner(request), run["run_id"])
    return {"result": {"run_id": run["run_id"]}, "meta": {"applied_through_seq": before(place)}}


def failed(ident: int | str | None, code: str, message: str) -> Json:
    return {"type": "error", "id": ident, "error": code, "message": message}


def _code(error: AgentflowError) -> str:
    if isinstance(error, NoSuchInterrupt):
        return "no_such_interrupt"
    if isinstance(error, Conflict):
        return "conflict"
    return "invalid_argument" if isinstance(error, BadInput) else "no_such_run"


@router.post(
    "/threads/{thread_id}/stream/events",
    summary="A thread's numbered events",
    response_model=None,
    response_class=Events,
    openapi_extra=described(Subscription),
)
async def events(request: Request, thread_id: str) -> Response:
    thread = uuid_of(thread_id, "thread_id")
    return sse(_framed(request, thread, await given(request, Subscription)), {})


async def _framed(request: Request, thread_id: str, body: Subscription) -> AsyncIterator[bytes]:
    async for event in _heard(request, thread_id, body):
        if event is None:
            yield HEARTBEAT
        else:
            yield b"id: %d\nevent: %s\ndata: %s\n\n" % (
                event["seq"],
                event["method"].encode(),
                orjson.dumps(event),
            )


async def _heard(request: Any, thread_id: str, body: Subscription) -> AsyncIterator[Json | None]:
    """What the subscriber wants, and None as a sign of life; stays open across runs, and may begin before the first."""
    spaces = tuple(tuple(one) for one in body.namespaces or ())
    wanted = Wanted(frozenset(body.channels), spaces, body.depth)
    streams = services(request).thread_streams
    try:
        async for event in told(streams, owner(request), thread_id, body.since, idle=KEEP_ALIVE):
            if event is None or wanted.takes(event):
                yield event
    except Behind:
        return


@router.websocket("/threads/{thread_id}/stream/events")
async def socket(websocket: WebSocket, thread_id: str) -> None:
    """Commands and events over one WebSocket. Closed with 4000 and the status that HTTP would answer."""
    if not welcome(websocket, websocket.app.state.services.settings.server.origins):
        await websocket.close(4403)
        return
    await websocket.accept()
    try:
        session = Session(websocket, uuid_of(thread_id, "thread_id"))
    except AgentflowError as error:
        await websocket.close(4404, error.message[:120])
        return
    try:
        while True:
            await session.hear(await websocket.receive_text())
    except (WebSocketDisconnect, KeyError):
        return
    finally:
        await session.close()


@dataclass
class Session:
    """One WebSocket: its subscriptions, and one place where frames are sent."""

    websocket: Any
    thread_id: str
    subscriptions: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    count: int = 0

    async def hear(self, frame: str) -> None:
        """One frame of the client."""
        try:
            found = parsed(frame.encode(errors="replace"))
            body = shaped(found if isinstance(found, dict) else {}, Command)
        except BadInput as error:
            await self.send(failed(None, "invalid_argument", error.message))
            return
        if body.method == "subscription.subscribe":
            await self._subscribe(body)
        elif body.method == "subscription.unsubscribe":
            await self._unsubscribe(body)
        else:
            await self.send(await obeyed(self.websocket, self.thread_id, body))

    async def send(self, told: Json) -> None:
        """To the client, whole frames one after the other."""
        await self.websocket.send_text(encoded(told).decode())

    async def close(self) -> None:
        """End every subscription."""
        await end(self.subscriptions.values())

    async def _subscribe(self, body: Command) -> None:
        try:
            wanted = shaped(body.params, Subscription)
        except BadInput as error:
            await self.send(failed(body.id, "invalid_argument", error.message))
            return
        if len(self.subscriptions) >= SUBSCRIPTIONS:
            refusal = f"A socket holds {SUBSCRIPTIONS} subscriptions; end one, or open another socket."
            await self.send(failed(body.id, "invalid_argument", refusal))
            return
        self.count += 1
        name = f"subscription-{self.count}"
        await self.send({"type": "success", "id": body.id, "result": {"subscription_id": name}})
        self.subscriptions[name] = asyncio.create_task(self._pump(wanted))

    async def _unsubscribe(self, body: Command) -> None:
        name = body.params.get("subscription_id")
        task = self.subscriptions.pop(name, None) if isinstance(name, str) else None
        if task is None:
            await self.send(failed(body.id, "no_such_subscription", f"There is no subscription {name!r}."))
            return
        task.cancel()
        await self.send({"type": "success", "id": body.id, "result": {}})

    async def _pump(self, wanted: Subscription) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            async for event in _heard(self.websocket, self.thread_id, wanted):
                if event is not None:
                    await self.send(event)
            await self.websocket.close(1012, "Come back with since.")
