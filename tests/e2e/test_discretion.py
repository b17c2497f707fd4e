"""What a graph raises: its text is for those who run the server, its class for everybody."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
SAID = "it broke as asked"


def answers(client: httpx.Client) -> dict[str, str]:
    """Everything that tells of a failed run."""
    thread = client.post("/threads", json={}).json()["thread_id"]
    body = {"assistant_id": "five_steps", "input": {"messages": [{"role": "user", "content": "break"}]}}
    modes = {**body, "stream_mode": ["values", "tasks", "debug", "checkpoints", "events"]}
    calls = {
        "wait": client.post(f"/threads/{thread}/runs/wait", json=body),
        "stream": client.post(f"/threads/{thread}/runs/stream", json=modes),
        "state": client.get(f"/threads/{thread}/state"),
        "history": client.get(f"/threads/{thread}/history"),
        "thread": client.get(f"/threads/{thread}"),
        "runs": client.get(f"/threads/{thread}/runs"),
        "tool": client.post("/mcp", json=_tool(body["input"])),
    }
    return {name: call.text for name, call in calls.items()}


def _tool(given: object) -> dict:
    params = {"name": "five_steps", "arguments": given}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ("", False),
        ("graph_errors: shown", True),
        ("graph_errors: [five_steps]", True),
        ("graph_errors: [other]", False),
    ],
)
def test_beyond_loopback_or_with_a_key_only_the_class_is_told(
    house, monkeypatch, more: str, shown: bool
) -> None:
    monkeypatch.setenv("KEY", "k")
    config = house.folder / "agentflow.yaml"
    config.write_text(config.read_text().replace("{port: 0}", f"{{port: 0, api_key: 'env:KEY', {more}}}"))
    with house.start("--graphs", str(GRAPHS)) as client:
        client.headers["x-api-key"] = "k"
        told = answers(client)
    assert {name for name, text in told.items() if SAID in text} == (set(told) - {"runs"} if shown else set())
    assert all(
        "ValueError" in told[name] for name in ("wait", "stream", "state", "history", "thread", "tool")
    )
    assert SAID in (house.folder / "err").read_text()


def test_the_first_key_ends_it_on_loopback_too(house) -> None:
    with house.start("--graphs", str(GRAPHS)) as client:
        assert SAID in answers(client)["wait"]
        command = [sys.executable, "-m", "agentflow", "keys", "create", "laptop"]
        made = subprocess.run(command, cwd=house.folder, check=True, capture_output=True, text=True)
        client.headers["x-api-key"] = re.search(r"af_\S+", made.stdout)[0]
        told = answers(client)
    assert [name for name, text in told.items() if SAID in text] == []
