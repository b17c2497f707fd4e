"""One connection: bounded headers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from agentflow.cli.connection import HEADERS, Bounded

ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n"
Ask = Callable[..., Coroutine[Any, Any, bytes]]


async def app(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Send parts over one connection; returns all that comes back until it ends, or nothing more comes."""
    config = uvicorn.Config(app, log_config=None, timeout_keep_alive=1)
    made = partial(Bounded, config=config, server_state=ServerState(), app_state={})
    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)

    async def send(*parts: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.01)
        answer = await reader.read()
        writer.close()
        return answer

    yield send
    server.close()


async def test_requests_follow_each_other_on_one_connection(ask) -> None:
    answer = await ask(ASKED + b"\r\n", ASKED, b"X-A: b\r\n\r\n")
    assert answer.count(b"200 OK") == 2


async def test_a_body_may_be_larger_than_headers(ask) -> None:
    size = 3 * HEADERS
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    answer = await ask(post + b"a" * size, ASKED + b"\r\n")
    assert answer.count(b"200 OK") == 2


@pytest.mark.parametrize("piece", [b"a" * 8192, b"a: bbb\r\n" * 1024], ids=["one", "many"])
async def test_headers_without_an_end_are_refused(ask, piece) -> None:
    answer = await ask(ASKED + b"X-A: ", *[piece] * 8)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(b"The headers are over 65536 bytes.")


@pytest.mark.parametrize("parts", [(), (ASKED,), (ASKED + b"\r\n", ASKED)], ids=["none", "half", "further"])
async def test_headers_that_do_not_come_are_not_awaited(ask, parts, monkeypatch) -> None:
    monkeypatch.setattr(Bounded, "within", 0.1)
    assert (await ask(*parts)).endswith(b"The headers took too long.")
