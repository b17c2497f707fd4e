"""`Idempotency-Key`: what was carried out once is not carried out again, but answered again.

Requests that make a turn or a run are known by their run, in the ledger; all others that change something by a claim.
"""

import asyncio
import hashlib
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import Request
from fastapi.responses import Response

from agentflow.api.keys import caller
from agentflow.ending import end
from agentflow.errors import AgentflowError, BadInput, Conflict
from agentflow.records.claims import LARGEST, SILENCE, Answered, Claim, Claims
from agentflow.wiring import Services

log = structlog.get_logger(__name__)
KEY = 255
"""Characters of an idempotency key."""
REPLAYED = "Idempotent-Replayed"
WRITES = ("POST", "PUT", "PATCH", "DELETE")
RUNS = re.compile(
    r"/(invoke|mcp|a2a/[^/]+|v1/chat/completions|v1/responses|threads/[^/]+/commands"
    r"|(threads/[^/]+/)?runs(/wait|/stream|/batch)?)"
)
"""Where the key names a run. What of it makes none, a call of the bare base model, asks `once` itself."""
LOOKS = re.compile(r"/route|/.+/(search|count|history|namespaces|embeddings|events|state/checkpoint)")
"""What changes nothing, though it is a POST."""


def key_of(request: Request) -> str | None:
    """The request's `Idempotency-Key`. Raises BadInput."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= KEY:
        raise BadInput(f"Idempotency-Key has between 1 and {KEY} characters.", field="Idempotency-Key")
    return key


def changes(method: str, path: str) -> bool:
    """Whether requests with this method change something at the path, or at a path of this pattern."""
    return method.upper() in WRITES and not (method.upper() == "POST" and LOOKS.fullmatch(path))


def claimed(method: str, path: str) -> bool:
    """Whether a key at this path names a claim, and no run."""
    return changes(method, path) and not (method.upper() == "POST" and RUNS.fullmatch(path))


async def once(request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
    """The answer of the work, or the one that it gave when the same was asked for with the same key.

    A refusal is not kept, nor is a stream. Raises Conflict, Busy and DatabaseDown, and what the work does.
    """
    key = key_of(request)
    if key is None:
        return await work()
    services: Services = request.app.state.services
    claim = Claim(caller(request).owner, key, await _fingerprint(request), uuid.uuid4())
    known = await services.claims.claim(claim)
    if known is not None:
        return _again(claim, known)
    try:
        async with _held(services.claims, claim):
            response = await work()
    except Exception:
        await _told(services.claims.release(claim))
        raise
    body = getattr(response, "body", None)
    if response.status_code >= 400 or body is None:
        await _told(services.claims.release(claim))
    else:
        headers = [(name, value) for name, value in response.headers.items() if name != "content-length"]
        await _told(services.claims.answer(claim, Answered(response.status_code, headers, bytes(body))))
    return response


async def _fingerprint(request: Request) -> bytes:
    """Method, address and body. The mark between the parts of a form is made up anew for every request."""
    body = await request.body()
    mark = re.search(r"boundary=\"?([^\";,]+)", request.headers.get("content-type", ""))
    if mark is not None:
        body = body.replace(mark[1].encode("latin-1"), b"")
    address = f"{request.method} {request.url.path}?{request.url.query}\n"
    return hashlib.sha256(address.encode() + body).digest()


def _again(claim: Claim, known: Answered) -> Response:
    if known.body is None:
        message = f"This was done before, but its answer was over {LARGEST} bytes and was not kept: look what is there."
        raise Conflict(message, field="Idempotency-Key", value=claim.key)
    response = Response(known.body, known.status)
    for name, value in known.headers:
        response.headers[name] = value
    response.headers[REPLAYED] = "true"
    return response


@asynccontextmanager
async def _held(claims: Claims, claim: Claim) -> AsyncIterator[None]:
    """Long work keeps its claim; if this process dies, somebody else may take it."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(SILENCE.total_seconds() / 3)
            await _told(claims.renew(claim))

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        await end([renewing])


async def _told(writing: Awaitable[None]) -> None:
    """What was done stays done, if its claim can't be written: the claim is then free in a minute."""
    try:
        await writing
    except AgentflowError as error:
        log.warning("a claim could not be written", reason=error.message)
