"""More runs than seats, over three servers on one database: all run, in order, and one server may leave meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.conformance
GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
CONFIG = """
model: {engine: double}
embedder: {kind: fake}
roles: {}
server: {port: 0, drain: 1}
limits: {running: 4, requests: 256, rate: null}
"""
STEPS = ["sort", "cast", "gather", "speak", "file_away"]
STREAMS = 50


@pytest.fixture
def houses(database, house_in, tmp_path_factory, monkeypatch) -> Iterator[list]:
    monkeypatch.setenv("DATABASE_URL", database)
    with ExitStack() as stack:
        found = [stack.enter_context(house_in(tmp_path_factory.mktemp("crowd"), CONFIG)) for _ in range(3)]
        for house in found:
            house.start("--graphs", str(GRAPHS)).close()
        yield found


@pytest.fixture
async def clients(houses) -> AsyncIterator[list[httpx.AsyncClient]]:
    limits = httpx.Limits(max_connections=None)
    found = [
        httpx.AsyncClient(base_url=one.address, timeout=90, trust_env=False, limits=limits) for one in houses
    ]
    yield found
    for client in found:
        await client.aclose()


def asked(text: str) -> dict:
    said = {"messages": [{"role": "user", "content": text}]}
    more = {"if_not_exists": "create", "stream_mode": ["updates"], "stream_resumable": True}
    return {"assistant_id": "five_steps", "input": said, **more}


async def events(
    client: httpx.AsyncClient, method: str, path: str, heard: list[dict] | None = None, **options: object
) -> list[dict]:
    """The frames of a stream until it ends or breaks off; `heard` has them as they come."""
    found = [{}] if heard is None else heard
    found[:] = [{}]
    try:
        async with client.stream(method, path, **options) as answer:
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if line and name:
                    found[-1][name] = json.loads(value) if name == "data" else value
                elif found[-1]:
                    found.append({})
    except httpx.HTTPError:
        pass
    return [one for one in found if "id" in one]


async def executed(client: httpx.AsyncClient) -> int:
    """Runs that a server has executed."""
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(int(float(one.split()[-1])) for one in lines if one.startswith("agentflow_turn_seconds_count"))


async def test_runs_of_one_thread_at_three_servers_all_speak_in_their_order(clients) -> None:
    thread = (await clients[0].post("/threads", json={})).json()["thread_id"]
    posts = [clients[n % 3].post(f"/threads/{thread}/runs/wait", json=asked(str(n))) for n in range(16)]
    assert [one.status_code for one in await asyncio.gather(*posts)] == [200] * 16
    state = (await clients[1].get(f"/threads/{thread}/state")).json()["values"]["messages"]
    runs = (await clients[2].get(f"/threads/{thread}/runs", params={"limit": 100})).json()
    order = [one["kwargs"]["input"]["messages"][0]["content"] for one in reversed(runs)]
    assert [one["content"] for one in state if one["type"] == "human"] == order
    assert [one["type"] for one in state] == ["human", "ai"] * 16


async def test_runs_beyond_a_servers_seats_are_executed_by_the_others(clients) -> None:
    before = [await executed(client) for client in clients]
    threads = [(await clients[0].post("/threads", json={})).json()["thread_id"] for _ in range(12)]
    waits = [clients[0].post(f"/threads/{one}/runs/wait", json=asked("slowly")) for one in threads]
    values = [one.json() for one in await asyncio.gather(*waits)]
    assert [[one["type"] for one in each["messages"]] for each in values] == [["human", "ai"]] * 12
    after = [await executed(client) for client in clients]
    assert all(now > then for now, then in zip(after, before, strict=True))


async def test_streams_of_a_server_that_leaves_go_on_elsewhere_without_loss(houses, clients) -> None:
    threads = [(await clients[0].post("/threads", json={})).json()["thread_id"] for _ in range(STREAMS)]
    heard: list[list[dict]] = [[] for _ in threads]
    reading = [
        asyncio.create_task(
            events(clients[0], "POST", f"/threads/{one}/runs/stream", here, json=asked("slowly"))
        )
        for one, here in zip(threads, heard, strict=True)
    ]
    async with asyncio.timeout(60):
        while not all(here and "id" in here[0] for here in heard):  # noqa: ASYNC110 - from outside
            await asyncio.sleep(0.05)
    leaving = asyncio.create_task(asyncio.to_thread(houses[0].stop))
    seen = await asyncio.gather(*reading)

    async def rest(thread: str, found: list[dict]) -> list[dict]:
        run_id = found[0]["data"]["run_id"]
        headers = {"Last-Event-ID": found[-1]["id"]}
        return await events(clients[1], "GET", f"/threads/{thread}/runs/{run_id}/stream", headers=headers)

    later = await asyncio.gather(*(rest(thread, found) for thread, found in zip(threads, seen, strict=True)))
    assert await leaving == 0
    told = [
        [next(iter(one["data"])) for one in (*first, *more) if one["event"] == "updates"]
        for first, more in zip(seen, later, strict=True)
    ]
    assert told == [STEPS] * STREAMS
    assert any(len(first) < len(STEPS) for first in seen)
