"""Who may: one key, in constant time, from either header; and who is asking."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import SecretStr

OPEN = ("/health",)
EVERYTHING = frozenset({"chat", "threads", "memory", "admin", "users"})
"""What a key may do; `users`: speak for any user of its tenant, named in the request."""


@dataclass(frozen=True)
class Caller:
    """Who is asking: every door takes tenant and user from here and from nowhere else."""

    tenant: int = 0
    user: str = "default"
    scopes: frozenset[str] = EVERYTHING


def caller(request: Request) -> Caller:
    """The caller that the guard found; without keys there is one, who may do everything."""
    found: Caller = getattr(request.state, "caller", Caller())
    return found


def guard(
    key: SecretStr,
) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    """Middleware that lets through who shows the key as `Authorization: Bearer` or `X-Api-Key`."""
    expected = key.get_secret_value().encode()

    async def check(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path in OPEN or hmac.compare_digest(shown(request).encode(), expected):
            return await go_on(request)
        message = "This server needs its key: send it as `Authorization: Bearer KEY` or `X-Api-Key: KEY`."
        return JSONResponse(
            {"error": "Unauthorized", "message": message}, 401, {"WWW-Authenticate": "Bearer"}
        )

    return check


def shown(request: Request) -> str:
    """The key a request shows, or nothing."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return (
        token.strip()
        if scheme.lower() == "bearer" and token.strip()
        else request.headers.get("x-api-key", "")
    )
