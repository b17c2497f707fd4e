"""Errors as clients of OpenAI know them: one wrapper for all of /v1, whoever refused."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentflow.api.problems import status
from agentflow.errors import AgentflowError
from agentflow.runs.attempts import as_json
from agentflow.turn import Json

PATH = "/v1/"
KINDS: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


CODES: Mapping[int, str] = {
    400: "invalid_json",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}
"""What the framework refused, by status."""


class InTheirShape:
    """Rewrites every JSON error under /v1 to `{"error": {"message", "type", "param", "code"}}`; 422 becomes 400."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; only refusals are changed."""
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self.app(scope, receive, send)
            return
        refused: Message | None = None
        body = b""

        async def tell(message: Message) -> None:
            nonlocal refused, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = message
            elif refused is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body"):
                    await _refuse(refused, body, send)

        await self.app(scope, receive, tell)


def shape(code: int, told: Json) -> Json:
    """Our own error as theirs; `code` is the HTTP status."""
    name = str(told.get("error", "error"))
    field = told.get("field")
    kind = KINDS.get(code, "invalid_request_error" if code < 500 else "server_error")
    short = CODES.get(code, "http_error") if name == "HTTP" else _snake(name)
    if (code, field) == (404, "model"):
        short = "model_not_found"
    return {"error": {"message": str(told.get("message", name)), "type": kind, "param": field, "code": short}}


def in_stream(error: AgentflowError) -> Json:
    """An error after the answer has begun, where no status can be told any more."""
    return shape(_theirs(status(error)), as_json(error))


def _theirs(code: int) -> int:
    return 400 if code == 422 else code


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


async def _refuse(start: Message, body: bytes, send: Send) -> None:
    code = _theirs(start["status"])
    rewritten = json.dumps(shape(code, _told(body, code)), ensure_ascii=False).encode()
    kept = [
        (name, value) for name, value in start["headers"] if name not in (b"content-length", b"content-type")
    ]
    kept += [(b"content-type", b"application/json"), (b"content-length", str(len(rewritten)).encode())]
    await send({**start, "status": code, "headers": kept})
    await send({"type": "http.response.body", "body": rewritten})


def _told(body: bytes, code: int) -> Json:
    try:
        told: Any = json.loads(body)
    except ValueError:
        told = body.decode("utf-8", "replace").strip() or f"HTTP {code}"
    return told if isinstance(told, dict) else {"error": "HTTP", "message": str(told)}


__all__ = ["InTheirShape", "in_stream", "shape"]
