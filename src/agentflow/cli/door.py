"""The server in this process, for the commands that need one."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentflow.api.app import create
from agentflow.cli.connection import Bounded
from agentflow.cli.port import listening
from agentflow.errors import StartError
from agentflow.settings.schema import Server
from agentflow.wiring import Place, Progress, Services, running

log = structlog.get_logger(__name__)
YOUNG = (30_000, 5, 5)
"""Objects more than there were before the newest are looked at for cycles, and how often so before older ones are."""


def settled() -> None:
    """What the start has made stays to the end, so Python's collector of cycles need not look at it ever again.

    Left as it is, it takes up to a quarter of a busy process's time, and stands still for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*YOUNG)


async def guarded(services: Services) -> None:
    """Beyond this machine nothing is answered that no key could open. Raises StartError."""
    settings = services.settings
    server = settings.server
    if server.on_loopback or server.api_key or settings.access.tokens or await services.keys.any():
        return
    raise StartError(
        f"server.host = {server.host} can be reached from other machines, so a key is needed: make one with "
        "`agentflow keys create NAME`, or server.api_key must be set (for example api_key: env:AGENTFLOW_API_KEY). "
        "Or listen on 127.0.0.1.",
        field="server.host",
        value=server.host,
    )


class CutOff:
    """A request that outlasts `server.drain` is a line in the log: its run goes on, or is handed over."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on. Only a stop cancels the task of a request, and then waits for nothing that it does."""
        started = False

        async def tell(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, tell)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            log.warning("a request was cut off by the stop", path=scope["path"])
            if not started:
                answer = PlainTextResponse(
                    "agentflow is shutting down; ask again.", 503, {"retry-after": "5"}
                )
                await answer(scope, receive, send)


class _Server(uvicorn.Server):
    """Leaves signals to `house.until_signal`, so that services close in order after the last request."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def door(place: Place, *, progress: Progress, on: socket.socket | None = None) -> AsyncIterator[str]:
    """Serve in this process, on a free loopback port unless `on` is given; yields the address."""
    taken = on or listening(Server(host="127.0.0.1", port=_free_port()))
    host, port = taken.getsockname()[:2]
    async with running(place, progress=progress) as services:
        if on is not None:
            await guarded(services)
        config = uvicorn.Config(
            CutOff(create(services)),
            http=Bounded,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=max(1, round(place.settings.server.drain)),
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[taken]))
        try:
            while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn offers no event
                await asyncio.sleep(0.01)
            yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        finally:
            services.served.thread_streams.end()
            server.should_exit = True
            await serving


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
