"""Callers that hang up, and readers that do not read."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from agentflow.api.limits import Impatient
from agentflow.api.listening import Gone, unless_gone
from agentflow.api.sse import ALIVE, alive

STREAM = [
    {"type": "http.response.start", "status": 200, "headers": []},
    {"type": "http.response.body", "body": b"a"},
]


def request(*messages: dict) -> Request:
    left = list(messages)

    async def receive() -> dict:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return Request({"type": "http"}, receive)


async def test_work_ends_with_its_only_caller() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(Gone):
        await unless_gone(request({"type": "http.request"}, {"type": "http.disconnect"}), work())
    assert ended.is_set()


async def test_a_caller_who_waits_gets_the_result_or_its_error() -> None:
    async def work(fails: bool) -> int:
        if fails:
            raise ValueError
        return 5

    assert await unless_gone(request(), work(fails=False)) == 5
    with pytest.raises(ValueError):
        await unless_gone(request(), work(fails=True))


async def stubborn(message: dict) -> None:
    if message["type"] == "http.response.body":
        await asyncio.Event().wait()


async def test_a_reader_who_takes_nothing_is_left() -> None:
    ended = asyncio.Event()

    async def app(_scope, _receive, send) -> None:
        try:
            for message in STREAM:
                await send(message)
        finally:
            ended.set()

    await Impatient(app, seconds=0.01)({"type": "http", "path": "/"}, None, stubborn)
    assert ended.is_set()


@pytest.mark.parametrize("raises", [True, False])
async def test_a_sender_who_stops_in_the_middle_is_told_so(raises: bool) -> None:
    sent: list[dict] = []

    async def app(scope, receive, send) -> None:
        try:
            await Request(scope, receive).body()
        except ClientDisconnect:
            if raises:
                raise
        await send({"type": "http.response.start", "status": 422, "headers": []})

    async def tell(message: dict) -> None:
        sent.append(message)

    half = request({"type": "http.request", "body": b"{", "more_body": True}).receive
    await Impatient(app, seconds=0.01)({"type": "http", "path": "/"}, half, tell)
    assert [one.get("status") for one in sent] == [408, None]


async def test_a_body_that_drips_is_not_waited_for_without_end() -> None:
    sent: list[int | None] = []

    async def drip() -> dict:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def app(scope, receive, _send) -> None:
        await Request(scope, receive).body()

    async def tell(message: dict) -> None:
        sent.append(message.get("status"))

    await Impatient(app, seconds=60, whole=0.01)({"type": "http", "path": "/"}, drip, tell)
    assert sent == [408, None]


async def test_who_waits_for_the_caller_to_hang_up_waits_as_long_as_it_takes() -> None:
    async def app(_scope, receive, _send) -> None:
        await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.05)

    whole = request({"type": "http.request", "body": b"{}"}).receive
    await Impatient(app, seconds=0.01)({"type": "http", "path": "/"}, whole, stubborn)


async def test_other_time_outs_are_not_the_readers() -> None:
    async def app(*_: object) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await Impatient(app, seconds=1)({"type": "http", "path": "/"}, None, stubborn)


async def test_a_quiet_stream_gives_signs_of_life_and_ends_what_it_reads() -> None:
    go, closed = asyncio.Event(), asyncio.Event()

    async def frames():
        try:
            yield "data: a\n\n"
            await go.wait()
            yield "data: b\n\n"
        finally:
            closed.set()

    stream = alive(frames(), quiet=0.01)
    assert [await anext(stream) for _ in range(3)] == ["data: a\n\n", ALIVE, ALIVE]
    go.set()
    rest = [one async for one in stream if one != ALIVE]
    assert (rest, closed.is_set()) == (["data: b\n\n"], True)


async def test_a_stream_that_is_left_ends_its_source() -> None:
    closed = asyncio.Event()

    async def frames():
        try:
            yield "data: a\n\n"
            await asyncio.Event().wait()
        finally:
            closed.set()

    stream = alive(frames())
    await anext(stream)
    await stream.aclose()
    assert closed.is_set()
