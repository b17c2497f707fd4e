"""Several processes on one address: `agentflow serve --workers N`."""

import time

import httpx
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
    assert (len(workers), psutil.wait_procs(workers, timeout=120)[1]) == (2, [])
    with house.start("--workers", "2") as again:
        assert again.get(f"/turns/{said['run_id']}").json()["output"] == said["output"]


def test_a_worker_that_died_is_replaced(pair) -> None:
    house, client = pair
    first, second = _workers(house)
    first.kill()
    assert client.post("/invoke", json={"input": "hello", "role": "coder"}).status_code == 200
    deadline = time.monotonic() + 120
    while len(left := [one for one in _workers(house) if one != first]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert second in left


def test_workers_count_a_key_s_limit_together(house, monkeypatch) -> None:
    monkeypatch.setenv("KEY", "k")
    config = house.folder / "agentflow.yaml"
    limited = "{port: 0, api_key: 'env:KEY'}\nlimits: {rate: 8/day}"
    config.write_text(config.read_text().replace("{port: 0}", limited))
    with house.start("--workers", "2") as client:

        def asked() -> httpx.Response:
            return httpx.get(f"{client.base_url}/routes", headers={"x-api-key": "k"}, trust_env=False)

        answers = [asked() for _ in range(24)]
    assert [one.status_code for one in answers] == [200] * 8 + [429] * 16
    assert {one.json()["error"] for one in answers[8:]} == {"TooMany"}
    assert all(int(one.headers["retry-after"]) > 0 for one in answers[8:])


def test_a_changed_assistant_is_so_for_every_worker(pair) -> None:
    _, client = pair
    client.headers["connection"] = "close"  # the next request may be another worker's
    made = client.post("/assistants", json={"graph_id": "agent"}).json()["assistant_id"]
    given = {"assistant_id": made, "input": {"messages": [{"role": "user", "content": "hello"}]}}
    seen = []
    for k in range(8):
        client.patch(f"/assistants/{made}", json={"config": {"configurable": {"k": k}}})
        seen.append(client.post("/runs", json=given).json()["kwargs"]["config"]["configurable"]["k"])
    assert seen == list(range(8))
