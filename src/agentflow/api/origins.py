"""Web pages: which may speak to this server from a browser, and that no other can make a browser act here."""

from fastapi.responses import JSONResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from agentflow.api.problems import in_shape

STUDIO = "https://smith.langchain.com"
"""Where LangGraph Studio is served from."""
SAID_BY = [f"x-agentflow-{name}" for name in ("run", "thread", "role", "adapter", "tier", "kind")]
EXPOSED = [
    "content-location",
    "location",
    "x-pagination-total",
    "x-pagination-next",
    "retry-after",
    "idempotent-replayed",
    *SAID_BY,
]
SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Refuses what pages of other origins send.

    A body of JSON under the content type text/plain needs no question of the browser beforehand, so the origin is
    looked at on every request that changes something.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self.app = app
        self.origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] != "http" or scope["method"] in SAFE:
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        if welcome(connection, self.origins):
            await self.app(scope, receive, send)
            return
        origin = connection.headers.get("origin", "")
        message = f"Pages of {origin[:200]} may not use this server; server.origins lists those that may."
        refusal = JSONResponse(in_shape(scope["path"], {"error": "Forbidden", "message": message}), 403)
        await refusal(scope, receive, send)


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
