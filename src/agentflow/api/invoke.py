"""POST /invoke: a message in, an answer out; with `stream: true` the steps and tokens as they happen."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentflow import protocols
from agentflow.api import answers, sse
from agentflow.api.bodies import DoorRoute
from agentflow.api.keys import Caller, caller
from agentflow.api.problems import problem
from agentflow.api.turns import LONGEST
from agentflow.errors import AgentflowError, BadInput, TooLarge, UnknownRole
from agentflow.routing.select import BASE, wanted
from agentflow.runs.attempts import as_json
from agentflow.runs.feed import Feed
from agentflow.settings import Settings
from agentflow.turn import Json
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute)


class Invocation(BaseModel):
    """One message. Without `thread_id` a new thread begins; without `role` the message finds its own."""

    model_config = ConfigDict(extra="forbid")

    input: str = Field(description="What the user says.")
    role: str | None = Field(None, max_length=128, description="A role's name, or agentflow/NAME.")
    thread_id: UUID | None = Field(None, description="Continue this conversation.")
    stream: bool = Field(False, description="Answer with server-sent events.")
    webhook: str | None = Field(
        None, max_length=2048, description="Do not wait: 202 at once, the answer is posted there."
    )
    wait: float | None = Field(
        None, ge=0, le=LONGEST, description="Seconds; if they pass, 202 and the address of the turn."
    )


@router.post("/invoke", response_model=None, summary="One turn of a conversation", responses=sse.TOO)
async def invoke(
    body: Invocation,
    request: Request,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Run one turn.

    The message is in the ledger before the first byte of the answer. The same `Idempotency-Key` returns the
    stored answer, or goes on with the turn if it was interrupted. A turn goes on when its caller hangs up:
    `GET /turns/{run_id}` tells what became of it.
    """
    services: Services = request.app.state.services
    if body.webhook is not None:
        await services.egress.check(body.webhook, field="webhook")
    feed = await services.worker.start(_request(body, idempotency_key, services.settings, caller(request)))
    if body.webhook is not None:
        return _later(feed)
    if body.stream:
        headers = {**sse.HEADERS, **await _known(feed)}
        return StreamingResponse(sse.alive(_events(feed)), media_type="text/event-stream", headers=headers)
    try:
        async with asyncio.timeout(body.wait):
            result = await feed.finished()
    except TimeoutError:
        return _later(feed)
    except AgentflowError as error:
        return problem(error, feed.run_id)
    return JSONResponse(result, headers=answers.headers(result))


def checked(text: str, settings: Settings) -> str:
    """The text, if it can be a message. Raises BadInput or TooLarge."""
    if not text.strip():
        raise BadInput("input is empty; say something.", field="input", value=text)
    limit = settings.server.message_chars
    if len(text) > limit:
        raise TooLarge(
            f"input has {len(text)} characters; server.message_chars allows {limit}.", field="input"
        )
    return text


def _request(body: Invocation, key: str | None, settings: Settings, who: Caller) -> protocols.Request:
    role = wanted(body.role)
    if role is not None and role != BASE and role not in settings.roles:
        known = ", ".join(settings.roles) or "none"
        raise UnknownRole(f"There is no role {role!r}. Roles: {known}.", field="role", value=body.role)
    thread = str(body.thread_id) if body.thread_id else None
    return protocols.Request(
        text=checked(body.input, settings),
        tenant=who.tenant,
        user=who.user,
        thread_id=thread,
        wanted_role=body.role,
        idempotency_key=key,
        webhook=body.webhook,
    )


def _later(feed: Feed) -> JSONResponse:
    """The turn is in the ledger and goes on; here is where it can be asked for."""
    ids = {"run_id": feed.run_id, "thread_id": feed.thread_id, "status": "running"}
    headers = {"Location": f"/turns/{feed.run_id}", "X-Agentflow-Run": feed.run_id, "Retry-After": "1"}
    return JSONResponse(ids, 202, headers)


async def _known(feed: Feed) -> dict[str, str]:
    """Who answers, once that is chosen; a turn that fails before says so in its events."""
    try:
        return answers.chosen(feed.run_id, feed.thread_id, await answers.selection(feed))
    except AgentflowError:
        return {"X-Agentflow-Run": feed.run_id, "X-Agentflow-Thread": feed.thread_id}


async def _events(feed: Feed) -> AsyncGenerator[str, None]:
    async with aclosing(feed.follow()) as events:
        async for event in events:
            yield _sse(event)
    if feed.error is not None:
        yield _sse({"event": "error", **as_json(feed.error), "run_id": feed.run_id})


def _sse(event: Json) -> str:
    data: dict[str, Any] = {key: value for key, value in event.items() if key != "event"}
    return f"event: {event['event']}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
