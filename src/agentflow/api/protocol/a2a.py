"""A2A: an assistant as an agent for other agents. A context is a thread, a task is a run."""

from typing import Any
from uuid import UUID, uuid5

import uuid_utils
from fastapi import APIRouter, Request
from starlette.responses import Response

from agentflow import __version__
from agentflow.api.once import key_of
from agentflow.api.protocol.assistants import assistant
from agentflow.api.protocol.jsonrpc import (
    BROKEN,
    INTERNAL,
    INVALID,
    PARAMS,
    UNKNOWN,
    Call,
    conflict,
    error,
    result,
)
from agentflow.api.protocol.runs import begun, outcome, owned_run
from agentflow.api.protocol.stream import sse
from agentflow.api.protocol.wire import (
    ProtocolRoute,
    answer,
    body_uuid,
    described,
    raw,
    services,
    shaped,
    who,
)
from agentflow.errors import AgentflowError, BadInput, Conflict, NotFound
from agentflow.runs.encoding import encoded
from agentflow.runs.feed import Feed
from agentflow.runs.wanted import RunWanted
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["a2a"])
CONTEXTS = UUID("0f0c2f9d-8a0f-4d39-9a57-5d5c4f4f4c1e")
NO_TASK, NOT_CANCELABLE = -32001, -32002
STATES = {
    "pending": "submitted",
    "running": "working",
    "success": "completed",
    "error": "failed",
    "timeout": "failed",
    "interrupted": "canceled",
}


@router.get("/.well-known/agent-card.json", summary="A2A: who an assistant is", response_model=None)
async def card(request: Request, assistant_id: str = "agent") -> Response:
    found = await assistant(request, assistant_id)
    address = f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}/a2a/{found['assistant_id']}"
    return answer(
        {
            "protocolVersion": "0.3.0",
            "name": found["name"],
            "description": found["description"] or f"The graph {found['graph_id']}, served by agentflow.",
            "url": address,
            "preferredTransport": "JSONRPC",
            "version": str(found["version"]),
            "provider": {"organization": "agentflow", "url": address},
            "capabilities": {"streaming": True, "pushNotifications": False, "stateTransitionHistory": False},
            "defaultInputModes": ["text/plain", "application/json"],
            "defaultOutputModes": ["text/plain", "application/json"],
            "skills": [
                {
                    "id": f"{found['graph_id']}-main",
                    "name": found["name"],
                    "description": f"Talk to {found['name']}.",
                    "tags": ["agentflow", __version__],
                }
            ],
        }
    )


@router.post(
    "/a2a/{assistant_id}",
    summary="A2A: messages and tasks",
    response_model=None,
    responses=BROKEN,
    openapi_extra=described(Call),
)
async def a2a(request: Request, assistant_id: str) -> Response:
    try:
        found = await raw(request)
        call = shaped(found if isinstance(found, dict) else {}, Call)
    except BadInput as wrong:
        return error(None, INVALID, wrong.message, 400)
    chosen = await assistant(request, assistant_id)
    try:
        return await _answered(request, chosen, call, call.params or {})
    except NotFound as missing:
        return error(call.id, NO_TASK, missing.message)
    except Conflict as used:
        return conflict(call, used)
    except BadInput as wrong:
        return error(call.id, PARAMS, wrong.message)
    except AgentflowError as broken:
        return error(call.id, INTERNAL, broken.message)


async def _answered(request: Request, chosen: Json, call: Call, params: Json) -> Response:
    match call.method:
        case "message/send":
            run, feed = await _begun(request, chosen, params)
            return result(call, await _ended(request, run, feed))
        case "message/stream":
            run, feed = await _begun(request, chosen, params)
            return sse(_streamed(request, call, run, feed), {})
        case "tasks/get":
            run = await _task(request, params)
            return result(call, task(run, STATES[run["status"]]))
        case "tasks/cancel":
            return await _cancelled(request, call, await _task(request, params))
        case _:
            return error(call.id, UNKNOWN, f"There is no method {call.method[:80]!r}.")


async def _begun(request: Request, chosen: Json, params: Json) -> tuple[Json, Feed]:
    message = params.get("message")
    if not isinstance(message, dict):
        raise BadInput("params.message is missing.", field="message")
    parts = message.get("parts") or []
    if not isinstance(parts, list):
        raise BadInput("params.message.parts is no list.", field="message.parts")
    texts = [
        str(one.get("text")) for one in parts if isinstance(one, dict) and one.get("kind", "text") == "text"
    ]
    key = key_of(request)
    thread = body_uuid(message.get("contextId"), "message.contextId") or _context(request, key)
    given = {"messages": [{"role": "user", "content": "\n".join(texts)}]}
    body = RunWanted(assistant_id=chosen["assistant_id"], input=given, if_not_exists="create")
    run, feed, _ = await begun(request, body, thread, streams=True, key=key)
    return run, feed


def _context(request: Request, key: str | None) -> str:
    """A thread for a message without one; with an idempotency key the same for every try."""
    me = who(request)
    return str(uuid_utils.uuid7() if key is None else uuid5(CONTEXTS, f"{me.tenant} {me.user} {key}"))


async def _ended(request: Request, run: Json, feed: Feed) -> Json:
    values = await outcome(request, run, feed)
    if isinstance(values, dict) and "__error__" in values:
        return task(run, "failed", str(values["__error__"].get("message", "")))
    if isinstance(values, dict) and "__interrupt__" in values:
        return task(run, "input-required", encoded(values["__interrupt__"]).decode())
    messages = values.get("messages") if isinstance(values, dict) else None
    text = _text(messages[-1]) if messages else encoded(values).decode()
    artifact = {
        "artifactId": str(uuid_utils.uuid7()),
        "name": "answer",
        "parts": [{"kind": "text", "text": text}],
    }
    return {**task(run, "completed", text), "artifacts": [artifact]}


async def _streamed(request: Request, call: Call, run: Json, feed: Feed) -> Any:
    def told(value: Json) -> bytes:
        return b"data: %s\n\n" % encoded({"jsonrpc": "2.0", "id": call.id, "result": value})

    yield told(task(run, "working"))
    found = await _ended(request, run, feed)
    for artifact in found.get("artifacts", ()):
        yield told({**_place(run), "kind": "artifact-update", "artifact": artifact, "lastChunk": True})
    yield told({**_place(run), "kind": "status-update", "status": found["status"], "final": True})


async def _task(request: Request, params: Json) -> Json:
    return await owned_run(request, None, str(params.get("id")))


async def _cancelled(request: Request, call: Call, run: Json) -> Response:
    if not await services(request).worker.stop([run["run_id"]], "interrupt", tenant=who(request).tenant):
        return error(call.id, NOT_CANCELABLE, f"Task {run['run_id']} has ended.")
    return result(call, task(run, "canceled"))


def task(run: Json, state: str, text: str = "") -> Json:
    """A run as a task."""
    status: Json = {"state": state, "timestamp": run["updated_at"]}
    if text:
        parts = [{"kind": "text", "text": text}]
        status["message"] = {"kind": "message", "role": "agent", "messageId": run["run_id"], "parts": parts}
    return {"kind": "task", "id": run["run_id"], "contextId": run["thread_id"], "status": status}


def _place(run: Json) -> Json:
    return {"taskId": run["run_id"], "contextId": run["thread_id"]}


def _text(message: Any) -> str:
    content = message["content"] if isinstance(message, dict) else message.content
    return content if isinstance(content, str) else encoded(content).decode()
