"""What vLLM refuses, in its words and its JSON."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Handler = Callable[[Request], Awaitable[Response]]


class Refusal(Exception):
    """An error answer of the table in vLLM's handlers."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.response = error(status, kind, message, param)


def answering(handler: Handler) -> Handler:
    """Turn what a handler raises into vLLM's error answers."""

    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal.response

    return answered


async def fields(request: Request, *names: str) -> dict[str, Any]:
    """The body, which must have these fields."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    try:
        body = await request.json() if kind == "application/json" else None
    except ValueError as fault:
        raise Refusal(400, "BadRequestError", f"1 validation error: {fault}") from fault
    if not isinstance(body, dict) or any(name not in body for name in names):
        raise Refusal(400, "BadRequestError", f"1 validation error: {', '.join(names)} required")
    if not all(body[name] for name in names):
        raise Refusal(400, "InvalidUserInput", f"Both {' and '.join(map(repr, names))} must be provided.")
    return body


def error(status: int, kind: str, message: str, param: str | None) -> JSONResponse:
    """As vLLM 0.32 writes it."""
    fields = {"message": message, "type": kind, "param": param, "code": status}
    return JSONResponse({"error": fields}, status)
