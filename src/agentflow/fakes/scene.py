"""What the doubles of model servers share: how they speak, fail and listen."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from agentflow.fakes.voices import answer, clipped, tokens

Fault = Literal["500", "503", "html", "garbage", "cut", "silence", "hang"]
"""What goes wrong with answers: a status, a page instead of JSON, an event that is no JSON, a connection that is
cut after the first word, a stream that ends without an end, nothing at all."""


Handler = Callable[[Request], Awaitable[Response]]
THREAD = "engine-double"


@dataclass
class Scene:
    """How a double speaks; may be changed while it runs. Seconds, and tokens per second (None: at once)."""

    base: str = "base"
    first_token: float = 0
    tokens_per_second: float | None = None
    fault: Fault | None = None
    running: int = 0

    def words(self, voice: str, body: dict[str, Any], *, limit: int) -> tuple[list[str], str]:
        stop = body.get("stop") or []
        text = answer(voice, body["messages"])
        return clipped(text, max_tokens=limit, stop=[stop] if isinstance(stop, str) else stop)

    async def spoken(self, words: list[str]) -> AsyncGenerator[str, None]:
        """The words in their time, with the fault that is set."""
        self.running += 1
        try:
            await asyncio.sleep(self.first_token)
            while self.fault == "hang":  # noqa: ASYNC110 - switched from other threads
                await asyncio.sleep(0.02)
            for word in words:
                yield word
                if self.fault == "cut":
                    raise ConnectionError("cut by the double")
                await asyncio.sleep(1 / self.tokens_per_second if self.tokens_per_second else 0)
        finally:
            self.running -= 1

    def failure(self) -> Response | None:
        """What is answered instead of beginning."""
        if self.fault in ("500", "503"):
            return error(int(self.fault), "the double was told to fail")
        return (
            Response("<html>proxy error</html>", 502, media_type="text/html")
            if self.fault == "html"
            else None
        )


def surface(info: Handler, chat: Handler) -> Starlette:
    """What LoRAX and TGI offer alike; a server that listens is healthy."""

    async def health(_: Request) -> Response:
        return Response(status_code=200)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/info", info),
            Route("/v1/chat/completions", chat, methods=["POST"]),
        ]
    )


def error(status: int, message: str) -> JSONResponse:
    """An error in OpenAI's form."""
    return JSONResponse({"error": {"message": message, "type": "error", "code": status}}, status)


def chat(scene: Scene, body: dict[str, Any], voice: str) -> Response:
    """A streamed chat completion in a voice."""
    if response := scene.failure():
        return response
    words, finish = scene.words(voice, body, limit=body.get("max_tokens") or 512)
    return StreamingResponse(_events(scene, body, words, finish), media_type="text/event-stream")


async def _events(
    scene: Scene, body: dict[str, Any], words: list[str], finish: str
) -> AsyncGenerator[str, None]:
    async for word in scene.spoken(words):
        yield _event(body, [{"index": 0, "delta": {"content": word}, "finish_reason": None}])
        if scene.fault == "garbage":
            yield "data: {not json\n\n"
    if scene.fault == "silence":
        return
    usage = {"prompt_tokens": asked(body), "completion_tokens": len(words)}
    yield _event(body, [{"index": 0, "delta": {}, "finish_reason": finish}])
    yield _event(body, [], usage=usage)
    yield "data: [DONE]\n\n"


def asked(body: dict[str, Any]) -> int:
    """Tokens of the prompt."""
    return sum(len(tokens(message["content"])) for message in body["messages"])


def _event(body: dict[str, Any], choices: list[dict[str, Any]], **more: Any) -> str:
    frame = {"object": "chat.completion.chunk", "model": body.get("model"), "choices": choices, **more}
    return f"data: {json.dumps(frame)}\n\n"


async def fields(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = await request.json()
    return body


@contextmanager
def listening(app: ASGIApp, on_stop: Callable[[Callable[[], None]], None] | None = None) -> Iterator[str]:
    """Run an application on a free loopback port in a thread of its own; yields its url.

    `on_stop` is given what ends the server at once, for doubles that die.
    """
    # The protocol must be named: asyncio sets TCP_NODELAY only then, and without it answers wait 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        # No logging of uvicorn's own: it would silence every other server of this process.
        logging.getLogger("uvicorn.error").addFilter(_of_others)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1, ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name=THREAD)
        if on_stop:
            on_stop(lambda: _stop(server))
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            _stop(server)
            thread.join()


def _of_others(record: logging.LogRecord) -> bool:
    """Nobody wants to read what a double logs."""
    return record.threadName != THREAD


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True
