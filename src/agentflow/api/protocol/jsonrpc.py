"""JSON-RPC 2.0, as MCP and A2A use it: one request, one answer."""

from typing import Any

from starlette.responses import Response

from agentflow.api.protocol.wire import Given, answer
from agentflow.errors import Conflict
from agentflow.turn import Json

INVALID, UNKNOWN, PARAMS, INTERNAL = -32600, -32601, -32602, -32603


BROKEN: dict[int | str, dict[str, Any]] = {400: {"description": "No JSON-RPC: the error has no id."}}
"""For the OpenAPI document."""


class Call(Given):
    """A request; without `id` it is a notification, which has no answer."""

    jsonrpc: str = "2.0"
    id: int | str | None = None
    method: str
    params: Json | None = None


def result(call: Call, value: Any) -> Response:
    return answer({"jsonrpc": "2.0", "id": call.id, "result": value})


def error(call_id: int | str | None, code: int, message: str, status: int = 200) -> Response:
    return answer({"jsonrpc": "2.0", "id": call_id, "error": {"code": code, "message": message}}, status)


def conflict(call: Call, used: Conflict) -> Response:
    """An idempotency key that stands for something else. The status of HTTP stays 200, as clients of JSON-RPC read no
    other answers; `data.status` has it.
    """
    told = {"code": PARAMS, "message": used.message, "data": {"error": "Conflict", "status": 409}}
    return answer({"jsonrpc": "2.0", "id": call.id, "error": told})
