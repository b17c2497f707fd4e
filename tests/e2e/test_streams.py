"""Two servers over one database: what one begins, the other tells, with the same ids and nothing lost or doubled."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect

pytestmark = pytest.mark.conformance
GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
CONFIG = """
model: {engine: double}
embedder: {kind: fake}
roles: {}
server: {port: 0}
"""
STEPS = ["sort", "cast", "gather", "speak", "file_away"]
CHANNELS = ["lifecycle", "messages", "values", "updates", "input"]


@pytest.fixture(scope="module")
def addresses(fresh_database, house_in, tmp_path_factory) -> Iterator[list[str]]:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", fresh_database())
        houses = [stack.enter_context(house_in(tmp_path_factory.mktemp("pair"), CONFIG)) for _ in range(2)]
        for house in houses:
            house.start("--graphs", str(GRAPHS)).close()
        yield [house.address for house in houses]


@pytest.fixture
async def pair(addresses: list[str]) -> AsyncIterator[list[httpx.AsyncClient]]:
    clients = [httpx.AsyncClient(base_url=one, timeout=120, trust_env=False) for one in addresses]
    yield clients
    for client in clients:
        await client.aclose()


def asked(text: str, **more: object) -> dict:
    content = {"messages": [{"role": "user", "content": text}]}
    return {"assistant_id": "five_steps", "input": content, "stream_mode": ["updates"], **more}


async def thread(client: httpx.AsyncClient) -> str:
    return (await client.post("/threads", json={})).json()["thread_id"]


async def frames(
    client: httpx.AsyncClient, method: str, path: str, begun: asyncio.Event | None = None, **options: object
) -> AsyncIterator[dict]:
    """The frames of a stream, each with its event, id and data; what comes from `begun` on is heard."""
    async with client.stream(method, path, **options) as answer:
        if begun is not None:
            begun.set()
        frame: dict = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                frame[name] = json.loads(value) if name == "data" else value
            elif frame:
                yield frame
                frame = {}


async def heard(events: AsyncIterator[dict], last: Callable[[dict], bool]) -> list[dict]:
    """Everything up to the last one."""
    found = []
    async with asyncio.timeout(120):
        async for one in events:
            found.append(one)
            if last(one):
                break
    await events.aclose()
    return found


def steps(found: list[dict]) -> list[str]:
    return [next(iter(one["data"])) for one in found if one["event"] == "updates"]


def ends(times: int) -> Callable[[dict], bool]:
    left = [times]

    def last(one: dict) -> bool:
        left[0] -= one["event"] == "updates" and "file_away" in one["data"]
        return not left[0]

    return last


async def listening(
    client: httpx.AsyncClient, thread_id: str, times: int, seen: str | None = None
) -> asyncio.Task:
    """A listener to the thread that hears so many runs; it listens when this returns."""
    headers = {} if seen is None else {"Last-Event-ID": seen}
    begun = asyncio.Event()
    events = frames(client, "GET", f"/threads/{thread_id}/stream", begun, headers=headers)
    task = asyncio.create_task(heard(events, ends(times)))
    async with asyncio.timeout(120):
        await begun.wait()
    return task


async def test_a_thread_is_heard_wherever_its_runs_are(pair) -> None:
    here, there = pair
    one = await thread(here)
    listener = await listening(there, one, 3)
    for client, text in ((here, "first"), (there, "second"), (here, "third")):
        await client.post(f"/threads/{one}/runs/wait", json=asked(text))
    found = await listener
    assert steps(found) == STEPS * 3
    numbers = [int(each["id"].split("-")[1]) for each in found]
    assert numbers == sorted(set(numbers))


async def test_a_listener_goes_on_at_the_other_server_with_its_last_id(pair) -> None:
    here, there = pair
    one = await thread(here)
    listener = await listening(here, one, 2)
    for text in ("first", "second"):
        await here.post(f"/threads/{one}/runs/wait", json=asked(text))
    found = await listener
    for place in (0, 3, 7, 10):
        again = await listening(
            there, one, sum(1 for each in found[place + 1 :] if ends(1)(each)), found[place]["id"]
        )
        assert await again == found[place + 1 :]
    assert await (await listening(there, one, 2, "-")) == found


async def test_a_running_run_is_joined_at_the_other_server_without_loss(pair) -> None:
    here, there = pair
    one = await thread(here)
    body = asked("slowly", stream_resumable=True, on_disconnect="continue")
    first = await heard(
        frames(here, "POST", f"/threads/{one}/runs/stream", json=body),
        lambda each: each["event"] == "updates",
    )
    path = f"/threads/{one}/runs/{first[0]['data']['run_id']}/stream"
    rest = frames(there, "GET", path, headers={"Last-Event-ID": first[-1]["id"]})
    assert steps(first + await heard(rest, ends(1))) == STEPS


async def test_a_run_left_after_every_event_and_rejoined_at_the_other_server_is_heard_whole(pair) -> None:
    one = await thread(pair[0])
    body = asked("slowly", stream_mode=["updates", "values"], stream_resumable=True, on_disconnect="continue")
    first = frames(pair[0], "POST", f"/threads/{one}/runs/stream", json=body)
    found = await heard(first, lambda _: True)
    path = f"/threads/{one}/runs/{found[0]['data']['run_id']}/stream"
    come: list[dict] = found
    while come:
        seen = {"Last-Event-ID": found[-1]["id"]}
        come = await heard(frames(pair[len(found) % 2], "GET", path, headers=seen), lambda _: True)
        found += come
    assert steps(found) == STEPS
    for client in pair:
        assert await rest(client, path, "-") == found
        for place, event in enumerate(found):
            assert await rest(client, path, event["id"]) == found[place + 1 :]


@pytest.mark.parametrize(
    "seen", ["-", "-1", "0", "no id", "x-3", "1-", "1-2-x", "1-99999999999999999999", "\u00e4"]
)
async def test_an_id_that_is_none_of_ours_means_the_beginning(pair, seen: str) -> None:
    here, there = pair
    path = await ended_run(here)
    assert await rest(there, path, seen) == await rest(here, path, "-")


async def test_an_id_of_another_run_stands_for_its_number_and_one_that_is_to_come_for_nothing(pair) -> None:
    here, there = pair
    one, other = await ended_run(here), await ended_run(there)
    mine = await rest(here, one, "-")
    assert [each["id"].split("-")[1] for each in await rest(here, other, mine[2]["id"])] == ["4", "5", "6"]
    for client in pair:
        assert await rest(client, one, "1790000000000-999999") == []


async def ended_run(client: httpx.AsyncClient) -> str:
    """Where the stream of a run is that has ended: its metadata and five updates."""
    body = asked("hi", stream_resumable=True, if_not_exists="create")
    one = str(uuid4())
    found = await heard(frames(client, "POST", f"/threads/{one}/runs/stream", json=body), lambda _: False)
    return f"/threads/{one}/runs/{found[0]['data']['run_id']}/stream"


async def rest(client: httpx.AsyncClient, path: str, seen: str) -> list[dict]:
    """What comes after an id, until the stream ends."""
    headers = {"Last-Event-ID": seen.encode()}
    return await heard(frames(client, "GET", path, headers=headers), lambda _: False)


async def test_a_run_that_begins_later_is_heard_in_its_turn(pair) -> None:
    here, there = pair
    one = await thread(here)
    listener = await listening(there, one, 2)
    later = (await here.post(f"/threads/{one}/runs", json=asked("later", after_seconds=3))).json()
    now = await here.post(f"/threads/{one}/runs/wait", json=asked("now"))
    runs = [each["data"]["run_id"] for each in await listener if each["event"] == "metadata"]
    assert runs == [now.headers["content-location"].rsplit("/", 1)[1], later["run_id"]]


async def numbered(client: httpx.AsyncClient, thread_id: str, since: int = 0) -> list[dict]:
    """The numbered events of the newer protocol, up to the end of a run."""
    body = {"channels": CHANNELS, "since": since}
    events = frames(client, "POST", f"/threads/{thread_id}/stream/events", json=body)
    return [each["data"] for each in await heard(events, lambda each: over(each["data"]))]


def over(event: dict) -> bool:
    return event["method"] == "lifecycle" and event["params"]["data"]["event"] != "running"


async def command(client: httpx.AsyncClient, thread_id: str, method: str, params: dict) -> dict:
    body = {"id": 1, "method": method, "params": params}
    return (await client.post(f"/threads/{thread_id}/commands", json=body)).json()


async def test_numbered_events_are_the_same_at_both_servers_and_after_the_end(pair) -> None:
    one = str(uuid4())
    waiting = [asyncio.create_task(numbered(client, one)) for client in pair]
    await asyncio.sleep(0.5)
    await command(pair[0], one, "run.start", asked("hi"))
    here, there = await asyncio.gather(*waiting)
    told = [(each["seq"], each["method"], each["params"]["data"]) for each in here]
    assert [(each["seq"], each["method"], each["params"]["data"]) for each in there] == told
    assert [each["event_id"] for each in await numbered(pair[1], one)] == [each["event_id"] for each in here]
    for place in range(0, len(told) - 1, 3):
        rest = await numbered(pair[1], one, since=told[place][0])
        assert [each["seq"] for each in rest] == [seq for seq, _, _ in told[place + 1 :]]


async def test_an_interrupt_heard_at_one_server_is_answered_at_the_other(pair) -> None:
    here, there = pair
    one = str(uuid4())
    begun = await command(here, one, "run.start", asked("approve"))
    asks = next(each for each in await numbered(there, one) if each["method"] == "input.requested")
    answer = {"interrupt_id": asks["params"]["data"]["interrupt_id"], "response": "yes"}
    through = (await command(there, one, "input.respond", answer))["meta"]["applied_through_seq"]
    assert begun["meta"]["applied_through_seq"] < asks["seq"] <= through
    assert "a person said yes" in json.dumps(await numbered(here, one, since=through))


async def test_a_websocket_hears_the_other_server(pair, addresses) -> None:
    one = str(uuid4())
    subscribe = {"id": 1, "method": "subscription.subscribe", "params": {"channels": CHANNELS}}
    async with connect(f"{addresses[1].replace('http', 'ws')}/threads/{one}/stream/events") as socket:
        await socket.send(json.dumps(subscribe))
        assert json.loads(await socket.recv())["type"] == "success"
        await command(pair[0], one, "run.start", asked("hi"))
        async with asyncio.timeout(120):
            found = [json.loads(await socket.recv())]
            while not over(found[-1]):
                found.append(json.loads(await socket.recv()))
    assert [each["seq"] for each in found] == [each["seq"] for each in await numbered(pair[0], one)]
