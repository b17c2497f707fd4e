"""POST /invoke: a message in, an answer out; with `stream: true` the steps and tokens as they happen."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agentflow import protocols
from agentflow.api.keys import Caller, caller
from agentflow.api.problems import problem
from agentflow.errors import AgentflowError, BadInput, TooLarge, UnknownRole
from agentflow.routing.select import BASE, wanted
from agentflow.runs.feed import Feed
from agentflow.runs.worker import as_json
from agentflow.settings import Settings
from agentflow.turn import Json
from agentflow.wiring import Services

router = APIRouter()
SSE = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Invocation(BaseModel):
    """One message. Without `thread_id` a new thread begins; without `role` the message finds its own."""

    model_config = ConfigDict(extra="forbid")

    input: str = Field(description="What the user says.")
    role: str | None = Field(None, max_length=128, description="A role's name, or agentflow/NAME.")
    thread_id: UUID | None = Field(None, description="Continue this conversation.")
    stream: bool = Field(False, description="Answer with server-sent events.")


@router.post("/invoke", response_model=None, summary="One turn of a conversation")
async def invoke(
    body: Invocation,
    request: Request,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Run one turn.

    The message is in the ledger before the first byte of the answer. The same `Idempotency-Key` returns the
    stored answer, or goes on with the turn if it was interrupted.
    """
    services: Services = request.app.state.services
    feed = await services.worker.start(_request(body, idempotency_key, services.settings, caller(request)))
    if body.stream:
        return StreamingResponse(_events(feed), media_type="text/event-stream", headers=SSE)
    try:
        result = await feed.finished()
    except AgentflowError as error:
        return problem(error, feed.run_id)
    return JSONResponse(result, headers=_headers(result))


def checked(text: str, settings: Settings) -> str:
    """The text, if it can be a message. Raises BadInput or TooLarge."""
    if not text.strip():
        raise BadInput("input is empty; say something.", field="input", value=text)
    if "\x00" in text:
        raise BadInput("input holds a NUL character, which no text has; remove it.", field="input")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadInput("input holds half a surrogate pair; send valid Unicode.", field="input")
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
    )


async def _events(feed: Feed) -> AsyncIterator[str]:
    async for event in feed.follow():
        yield _sse(event)
    if feed.error is not None:
        yield _sse({"event": "error", **as_json(feed.error), "run_id": feed.run_id})


def _sse(event: Json) -> str:
    data: dict[str, Any] = {key: value for key, value in event.items() if key != "event"}
    return f"event: {event['event']}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _headers(result: Json) -> dict[str, str]:
    cold = result["selection"].get("cold")
    told = (
        {}
        if cold is None
        else {"X-Agentflow-Cold": f"{cold['do']}; role={cold['role']}; eta={cold['eta']:g}"}
    )
    return {
        **told,
        "X-Agentflow-Run": result["run_id"],
        "X-Agentflow-Role": result["role"] or BASE,
        "X-Agentflow-Adapter": result["adapter"] or ("none (cold)" if _is_without(cold) else "none"),
        "X-Agentflow-Tier": result["tier"],
        "X-Agentflow-Reason": result["reason"],
        "X-Agentflow-Decision": _decision(result),
    }


def _is_without(cold: Json | None) -> bool:
    """Whether the base model answers since the role's adapter was too cold."""
    return cold is not None and cold["do"] == "base"


def _decision(result: Json) -> str:
    """The turn under whose id the decision is stored, and the figures that decided, where meaning did."""
    intent = result["intent"]
    figures = ("router", "confidence", "margin", "margin_threshold", "scope_score", "scope_threshold")
    shown = [f"{name}={intent[name]}" for name in figures if intent.get(name) is not None]
    return "; ".join([result["run_id"], *shown])
