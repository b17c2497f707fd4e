"""Several processes on one address: `agentflow serve --workers N`."""

import time

import psutil
import pytest


def _workers(house) -> list[psutil.Process]:
    return [one for one in psutil.Process(house.process.pid).children() if "--socket" in one.cmdline()]


@pytest.fixture
def pair(house):
    """A house with two workers, and a client of theirs."""
    with house.start("--workers", "2") as client:
        yield house, client


def test_workers_end_with_a_parent_that_was_killed(pair) -> None:
    house, client = pair
    said = client.post("/invoke", json={"input": "hello", "role": "coder"}).json()
    workers = _workers(house)
    house.kill()
    assert (len(workers), psutil.wait_procs(workers, timeout=30)[1]) == (2, [])
    with house.start("--workers", "2") as again:
        assert again.get(f"/turns/{said['run_id']}").json()["output"] == said["output"]


def test_a_worker_that_died_is_replaced(pair) -> None:
    house, client = pair
    first, second = _workers(house)
    first.kill()
    assert client.post("/invoke", json={"input": "hello", "role": "coder"}).status_code == 200
    deadline = time.monotonic() + 20
    while len(left := [one for one in _workers(house) if one != first]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert second in left
