"""MCP over streamable HTTP, without sessions: every served graph is a tool, and so are `ask` and `search_memory`."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from agentflow import __version__
from agentflow.api.protocol.assistants import schema_of_input
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
from agentflow.api.protocol.runs import finished
from agentflow.api.protocol.wire import ProtocolRoute, described, owner, raw, services, shaped
from agentflow.errors import AgentflowError, BadInput, Conflict
from agentflow.protocols import Scope
from agentflow.runs.encoding import encoded
from agentflow.runs.registry import OWN
from agentflow.runs.wanted import RunWanted
from agentflow.turn import Json
from agentflow.wiring import Services

NOTED: dict[int | str, dict[str, Any]] = {202: {"description": "A notification: there is no answer."}}
router = APIRouter(route_class=ProtocolRoute, tags=["mcp"])
VERSIONS = ("2025-06-18", "2025-03-26", "2024-11-05")
MOST = 50
TEXT: Json = {"type": "string"}
ASK: Json = {
    "name": "ask",
    "title": "Ask agentflow",
    "description": "Ask a question; the right role answers, with what it remembers.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "question": TEXT,
            "role": {**TEXT, "description": "A role's name; without it the question finds its own."},
            "thread_id": {**TEXT, "description": "Continue this conversation."},
        },
        "required": ["question"],
    },
}
SEARCH: Json = {
    "name": "search_memory",
    "title": "Search the memory",
    "description": "What was said before, found by words and meaning.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "query": TEXT,
            "collection": TEXT,
            "limit": {"type": "integer", "minimum": 1, "maximum": MOST},
        },
        "required": ["query"],
    },
}


@router.post(
    "/mcp",
    summary="MCP: tools over JSON-RPC",
    response_model=None,
    responses=BROKEN | NOTED,
    openapi_extra=described(Call),
)
async def mcp(request: Request) -> Response:
    try:
        found = await raw(request)
        call = shaped(found if isinstance(found, dict) else {}, Call)
    except BadInput as wrong:
        return error(None, INVALID, wrong.message, 400)
    if call.id is None:
        return Response(status_code=202)
    try:
        return await _answered(request, call, call.params or {})
    except BadInput as wrong:
        return error(call.id, PARAMS, wrong.message)
    except Conflict as used:
        return conflict(call, used)
    except AgentflowError as broken:
        return error(call.id, INTERNAL, broken.message)


async def _answered(request: Request, call: Call, params: Json) -> Response:
    match call.method:
        case "initialize":
            return result(call, _introduced(params))
        case "ping":
            return result(call, {})
        case "tools/list":
            return result(call, {"tools": await _tools(request)})
        case "tools/call":
            return result(call, await _called(request, params))
        case "resources/list" | "prompts/list":
            return result(call, {call.method.partition("/")[0]: []})
        case _:
            return error(call.id, UNKNOWN, f"There is no method {call.method[:80]!r}.")


def _introduced(params: Json) -> Json:
    asked = params.get("protocolVersion")
    return {
        "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": {"name": "agentflow", "version": __version__},
    }


async def _tools(request: Request) -> list[Json]:
    graphs = [
        {
            "name": graph,
            "description": f"Run the graph {graph} and return its values.",
            "inputSchema": {"type": "object", **await schema_of_input(request, graph)},
        }
        for graph in services(request).registry.ids
    ]
    return [*graphs, ASK, SEARCH]


async def _called(request: Request, params: Json) -> Json:
    """The content of a tool's answer; a failed run is an answer too, marked as an error."""
    name, given = params.get("name"), params.get("arguments") or {}
    if not isinstance(given, dict):
        raise BadInput("arguments is not an object.", field="arguments")
    if name == "search_memory":
        return _content(await _memories(request, given))
    if name == "ask":
        asked: Json = {"text": given.get("question"), "wanted_role": given.get("role")}
        values = await finished(request, RunWanted(assistant_id=OWN, input=asked), given.get("thread_id"))
        return _content(values, spoken=True)
    if name not in services(request).registry.ids:
        raise BadInput(f"There is no tool {str(name)[:80]!r}; tools/list names them.", field="name")
    return _content(await finished(request, RunWanted(assistant_id=str(name), input=given), None))


async def _memories(request: Request, given: Json) -> Json:
    query = given.get("query")
    if not isinstance(query, str) or not query.strip():
        raise BadInput("query is empty.", field="query")
    whole: Services = request.app.state.services
    mine, needs = owner(request), whole.needs
    limit = given.get("limit")
    most = limit if isinstance(limit, int) and 0 < limit <= MOST else 10
    vector = (await needs.embedder.embed([query]))[0]
    wanted = given.get("collection")
    known = [str(wanted)] if str(wanted) in whole.settings.collections else list(whole.settings.collections)
    found = [
        one
        for name in known
        for one in await needs.home.search(Scope(mine.tenant, name, mine.user), query, vector, most)
    ]
    return {"memories": sorted(found, key=lambda one: -one["score"])[:most]}


def _content(value: Any, *, spoken: bool = False) -> Json:
    failed = isinstance(value, dict) and "__error__" in value
    said = (value or {}).get("messages") if spoken and not failed else None
    text = said[-1]["content"] if said else encoded(value).decode()
    content: Json = {"content": [{"type": "text", "text": text}], "isError": failed}
    return content if spoken or not isinstance(value, dict) else {**content, "structuredContent": value}
