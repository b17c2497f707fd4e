"""The double as an application, and as a server that listens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agentflow.fakes.scene import listening
from agentflow.fakes.vllm.chat import Chat
from agentflow.fakes.vllm.engine import Double
from agentflow.fakes.vllm.options import Options
from agentflow.fakes.vllm.refusal import answering, error
from agentflow.fakes.vllm.surface import Surface


def double(options: Options | None = None) -> Starlette:
    """The application; `app.state.double` is the Double behind it."""
    engine = Double(options or Options())
    surface, chat = Surface(engine), Chat(engine)
    app = Starlette(
        routes=[
            Route("/health", surface.health),
            Route("/version", surface.version),
            Route("/metrics", surface.metrics),
            Route("/server_info", surface.info),
            Route("/v1/models", surface.models),
            Route("/v1/load_lora_adapter", answering(surface.load), methods=["POST"]),
            Route("/v1/unload_lora_adapter", answering(surface.unload), methods=["POST"]),
            Route("/v1/chat/completions", answering(chat.answer), methods=["POST"]),
            Route("/collective_rpc", answering(surface.rpc), methods=["POST"]),
        ],
        middleware=[Middleware(Door, engine=engine)],
    )
    app.state.double = engine
    return app


@dataclass(frozen=True)
class Served:
    """A double that listens. `state` may be read and its options changed while it runs."""

    url: str
    state: Double


@contextmanager
def serve(options: Options | None = None) -> Iterator[Served]:
    """Run a double on a free loopback port in a thread of its own."""
    app = double(options)
    with listening(app, lambda stop: setattr(app.state.double, "when_dead", stop)) as url:
        yield Served(url, app.state.double)


class Door:
    """What happens before any route: the key guards /v1 only, and a server that is down answers 503."""

    def __init__(self, app: ASGIApp, engine: Double) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        options = self._engine.options
        key = dict(scope.get("headers", [])).get(b"authorization", b"").decode("latin-1")
        app: ASGIApp = self._app
        if options.down:
            app = error(503, "ServiceUnavailable", "The server is down.", None)
        elif options.api_key and scope["path"].startswith("/v1") and key != f"Bearer {options.api_key}":
            app = JSONResponse({"error": "Unauthorized"}, 401)
        await app(scope, receive, send)
