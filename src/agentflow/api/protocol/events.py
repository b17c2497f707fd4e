"""A thread's numbered events for newer clients, over SSE or a WebSocket that takes commands too."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from pydantic import Field
from starlette.responses import Response

from agentflow.api.bodies import parsed
from agentflow.api.origins import welcome
from agentflow.api.protocol.commands import Command, failed, obeyed
from agentflow.api.protocol.runs import KEEP_ALIVE
from agentflow.api.protocol.stream import HEARTBEAT, sse
from agentflow.api.protocol.wire import (
    Given,
    ProtocolRoute,
    described,
    given,
    owner,
    services,
    shaped,
    uuid_of,
)
from agentflow.api.sse import Events
from agentflow.ending import end
from agentflow.errors import AgentflowError, BadInput
from agentflow.runs.encoding import encoded
from agentflow.runs.events import Behind
from agentflow.runs.telling import Wanted
from agentflow.runs.thread_events import told
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["events"])
SUBSCRIPTIONS = 64
"""Of one WebSocket."""


class Subscription(Given):
    channels: list[str] = Field(default_factory=list, max_length=64)
    namespaces: list[list[str]] | None = Field(None, max_length=64)
    depth: int | None = Field(None, ge=0, le=32)
    since: int = Field(0, ge=0, lt=1 << 53)


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
