"""LangGraph's own dev server opens the graph and runs a turn, as Studio would."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
LANGGRAPH = ROOT / ".venv-studio" / "bin" / "langgraph"
pytestmark = [
    pytest.mark.studio,
    pytest.mark.skipif(
        not LANGGRAPH.exists(), reason="langgraph-cli is not in .venv-studio; run make test-studio"
    ),
]
CONFIG = """
model: {engine: double}
embedder: {kind: fake}
roles:
  coder: {description: python code and functions, lora_path: "tiny:coder"}
router: {on_unknown: {do: role, role: coder}}
"""


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[httpx.Client]:
    for above in (tmp_path, *tmp_path.parents[:2]):
        above.chmod(0o755)
    shutil.copytree(ROOT / "graphs", tmp_path / "graphs")
    (tmp_path / "src").symlink_to(ROOT / "src")
    shutil.copy(ROOT / "langgraph.json", tmp_path)
    (tmp_path / "agentflow.yaml").write_text(CONFIG)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "LANGSMITH_TRACING": "false", "LANGGRAPH_DISABLE_FILE_PERSISTENCE": "true"}
    command = [str(LANGGRAPH), "dev", "--no-browser", "--no-reload", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
        _until_up(client, process, tmp_path / "log")
        yield client
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=120)


def _until_up(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            if client.get("/ok").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)


def test_the_dev_server_shows_the_six_steps_and_runs_a_turn(studio: httpx.Client) -> None:
    assistant = studio.post("/assistants/search", json={"graph_id": "agent"}).json()[0]["assistant_id"]
    drawn = studio.get(f"/assistants/{assistant}/graph").json()
    steps = ["__start__", "accept", "classify", "select", "recall", "generate", "remember", "__end__"]
    assert [node["id"] for node in drawn["nodes"]] == steps
    thread = studio.post("/threads", json={}).json()["thread_id"]
    for text in ("My dog is called Rex", "How is my dog called?"):
        body = {"assistant_id": "agent", "input": {"text": text}, "stream_mode": ["custom", "values"]}
        with studio.stream("POST", f"/threads/{thread}/runs/stream", json=body) as response:
            events = "".join(response.iter_text())
        for step in steps[1:-1]:
            assert f'"event":"{step}"' in events
        assert "[coder]" in events
        assert '"event":"done"' in events
    state = studio.get(f"/threads/{thread}/state").json()["values"]
    assert (state["role"], state["status"]) == ("coder", "done")
    assert "Rex" not in str(state)
