"""Errors on the wire: one shape, and one table from error class to status."""

import math
from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from agentflow import errors
from agentflow.api.places import tells_detail
from agentflow.runs.attempts import as_json
from agentflow.turn import Json

log = structlog.get_logger(__name__)

STATUS: Mapping[type[errors.AgentflowError], int] = {
    errors.TooLarge: 413,
    errors.BadInput: 422,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.ConfigError: 422,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Busy: 409,
    errors.TooMany: 429,
    errors.AdapterError: 503,
    errors.EngineTimeout: 504,
    errors.PromptRefused: 422,
    errors.GenerationFailed: 502,
    errors.EngineError: 503,
    errors.Unreachable: 502,
    errors.EmbedderError: 503,
    errors.HomeDown: 503,
    errors.DatabaseError: 503,
    errors.LeaseLost: 503,
    errors.TurnFailed: 502,
    errors.GraphFailed: 500,
    errors.AgentflowError: 500,
}
"""The first class in the error's ancestry that stands here decides."""


def status(error: errors.AgentflowError) -> int:
    """The HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(error: errors.AgentflowError, run_id: str | None = None, *, path: str = "") -> JSONResponse:
    """The answer to a request that failed; `run_id` names the turn it left in the ledger."""
    headers = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
    if isinstance(error, errors.Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    body = as_json(error) if run_id is None else {**as_json(error), "run_id": run_id}
    return JSONResponse(in_shape(path, body), status(error), headers)


def in_shape(path: str, told: Json) -> Json:
    """An error as clients of the door at `path` know them; /v1 is left to its own wrapper."""
    return {"detail": told["message"]} if tells_detail(path) else told


def install(app: FastAPI) -> None:
    """Every error of this app leaves in the one shape."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        known = error if isinstance(error, errors.AgentflowError) else errors.AgentflowError(str(error))
        return problem(known, path=request.url.path)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        details = error.errors() if isinstance(error, RequestValidationError) else []
        return JSONResponse(in_shape(request.url.path, _explained(details[0] if details else {})), 422)

    async def http(request: Request, error: Exception) -> Response:
        if isinstance(error.__cause__, errors.AgentflowError):
            return problem(
                error.__cause__, path=request.url.path
            )  # FastAPI wraps what reading the body has raised
        code = error.status_code if isinstance(error, HTTPException) else 500
        if code == 413:
            return PlainTextResponse("", code)  # limits.py knows the limit, and says it
        message = {
            400: "The body is not JSON in UTF-8.",
            404: "There is nothing at this address; /docs lists what there is.",
            405: "This address exists, but not for this method; /docs lists what there is.",
        }.get(code, str(getattr(error, "detail", error)))
        return JSONResponse(in_shape(request.url.path, {"error": "HTTP", "message": message}), code)

    async def broken(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response()  # nobody reads it; limits.py has logged who was too slow
        log.error("request broke", path=request.url.path, exc_info=error)
        told = {"error": "Internal", "message": "Something broke inside agentflow; its log says what."}
        return JSONResponse(in_shape(request.url.path, told), 500)

    app.add_exception_handler(errors.AgentflowError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, broken)


def _explained(detail: Json) -> Json:
    """A validation error as one readable line."""
    field = ".".join(str(part) for part in detail.get("loc", ()) if part != "body") or "body"
    message = str(detail.get("msg", "")).removeprefix("Value error, ")
    if detail.get("type") == "json_invalid":
        message, field = f"The body is not JSON: {detail.get('ctx', {}).get('error', message)}.", "body"
    elif detail.get("type") == "extra_forbidden":
        message = f"Unknown field {field}; /docs lists the fields."
    else:
        message = f"{field}: {message}."
    return {"error": "BadInput", "message": message, "field": field}
