"""Web pages: which may speak to this server from a browser, and that no other can make a browser act here."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from agentflow.api.problems import in_shape

STUDIO = "https://smith.langchain.com"
"""Where LangGraph Studio is served from."""
EXPOSED = ["content-location", "location", "x-pagination-total", "x-pagination-next", "retry-after"]
SAFE = ("GET", "HEAD", "OPTIONS")


def guard(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Refuse what pages of other origins send.

    A body of JSON under the content type text/plain needs no question of the browser beforehand, so the origin is
    looked at on every request that changes something.
    """

    async def check(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method in SAFE or welcome(request, origins):
            return await go_on(request)
        origin = request.headers.get("origin", "")
        message = f"Pages of {origin[:200]} may not use this server; server.origins lists those that may."
        return JSONResponse(in_shape(request.url.path, {"error": "Forbidden", "message": message}), 403)

    app.middleware("http")(check)


def shown(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Let pages of `origins` read every answer, Studio's over the private network too.

    Around all that may refuse: a browser keeps an answer without these headers from its page, the reason with it.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=list(origins),
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=EXPOSED,
        allow_private_network=True,
    )


def welcome(connection: HTTPConnection, origins: tuple[str, ...]) -> bool:
    """No web page asks, or one of `origins`, or one that this server itself has served."""
    origin = connection.headers.get("origin")
    if origin is None or origin in origins:
        return True
    return origin.partition("://")[2] == connection.headers.get("host")
