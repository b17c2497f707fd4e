"""A server that is paused or killed in the middle of a run: another goes on with it, and readers hear the whole run."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

pytestmark = pytest.mark.conformance
GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
CONFIG = """
model: {engine: double}
embedder: {kind: fake}
roles: {}
server: {port: 0}
"""
STEPS = ["sort", "cast", "gather", "speak", "file_away"]
ASKED = {
    "assistant_id": "five_steps",
    "input": {"messages": [{"role": "user", "content": "hold"}]},
    "stream_mode": ["updates"],
    "stream_resumable": True,
    "on_disconnect": "continue",
    "durability": "sync",
}


@dataclass
class Pair:
    """Two servers over one database; the first one's runs wait in their third step, the second one's do not."""

    dsn: str
    houses: list
    here: httpx.Client
    there: httpx.Client

    @property
    def pid(self) -> int:
        return self.houses[0].process.pid

    def lapse(self) -> None:
        """As if the first one had been silent for as long as its lease."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("update agentflow.run set lease_until = now() - interval '1 second'")


@pytest.fixture
def pair(fresh_database, house_in, tmp_path, monkeypatch) -> Iterator[Pair]:
    dsn = fresh_database()
    monkeypatch.setenv("DATABASE_URL", dsn)
    with ExitStack() as stack:
        houses, clients = [], []
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
            houses.append(stack.enter_context(house_in(tmp_path / name, CONFIG)))
            clients.append(stack.enter_context(houses[-1].start("--graphs", str(GRAPHS))))
        (tmp_path / "there" / "go").touch()
        yield Pair(dsn, houses, *clients)


def frames(answer: httpx.Response) -> Iterator[dict]:
    """The frames of a stream, each with its event, id and data."""
    frame: dict = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if line and name:
            frame[name] = json.loads(value) if name == "data" else value
        elif frame:
            yield frame
            frame = {}


def heard(events: Iterator[dict], step: str) -> list[dict]:
    """Up to the update of a step."""
    found = [next(events)]
    while step not in steps(found):
        found.append(next(events))
    return found


def steps(found: list[dict]) -> list[str]:
    return [next(iter(one["data"])) for one in found if one["event"] == "updates"]


def whole(client: httpx.Client, path: str, seen: str = "-") -> list[dict]:
    with client.stream("GET", f"{path}/stream", headers={"Last-Event-ID": seen}) as answer:
        return list(frames(answer))


def begun(client: httpx.Client) -> str:
    return client.post("/threads", json={}).json()["thread_id"]


def test_who_reads_at_a_server_that_was_paused_hears_what_another_has_done_meanwhile(
    pair: Pair, until: Callable[[Callable[[], bool]], None]
) -> None:
    thread = begun(pair.here)
    with pair.here.stream("POST", f"/threads/{thread}/runs/stream", json=ASKED) as answer:
        events = frames(answer)
        found = heard(events, "cast")
        path = f"/threads/{thread}/runs/{found[0]['data']['run_id']}"
        os.kill(pair.pid, signal.SIGSTOP)
        try:
            pair.lapse()
            until(lambda: pair.there.get(path).json()["status"] == "success")
            state = pair.there.get(f"/threads/{thread}/state").json()
            (pair.houses[0].folder / "go").touch()
        finally:
            os.kill(pair.pid, signal.SIGCONT)
        found += list(events)
    told = whole(pair.there, path)
    assert [one for one in found if one in told] == told
    assert steps(found)[-3:] == STEPS[-3:]
    assert [one["data"].get("attempt") for one in found if one["event"] == "metadata"] == [1, 2]
    assert pair.here.get(f"/threads/{thread}/state").json() == state


def test_who_read_at_a_server_that_was_killed_goes_on_at_another(pair: Pair) -> None:
    thread = begun(pair.here)
    with pair.here.stream("POST", f"/threads/{thread}/runs/stream", json=ASKED) as answer:
        found = heard(frames(answer), "cast")
        pair.houses[0].kill()
    path = f"/threads/{thread}/runs/{found[0]['data']['run_id']}"
    pair.lapse()
    rest = whole(pair.there, path, found[-1]["id"])
    numbers = [int(one["id"].split("-")[1]) for one in found + rest]
    assert numbers == sorted(set(numbers))
    assert steps(rest)[-3:] == STEPS[-3:]
    assert whole(pair.there, path)[-len(rest) :] == rest
