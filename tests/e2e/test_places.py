"""A collection moves while turns go on, by the file or by command."""

import subprocess
import sys
import time

import httpx


def agentflow(house, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in the house's folder."""
    command = [sys.executable, "-m", "agentflow", *arguments]
    return subprocess.run(command, cwd=house.folder, capture_output=True, text=True, timeout=240, check=False)


def state(client: httpx.Client) -> dict:
    return client.get("/memory/places").raise_for_status().json()["places"][0]


def recalled(client: httpx.Client, text: str) -> tuple[str, list[str]]:
    found = client.get("/memory/search", params={"q": text}).raise_for_status().json()
    return found["memory"], [one["content"] for one in found["memories"]]


def test_a_changed_file_moves_a_collection_and_a_command_moves_it_on(house) -> None:
    client = house.start()
    client.post("/invoke", json={"input": "My dog is called Rex"}).raise_for_status()
    deadline = time.monotonic() + 120
    file = house.folder / "agentflow.yaml"
    file.write_text(file.read_text() + "collections:\n  conversations: {backend: faiss, location: SSD}\n")
    while not state(client)["place"].startswith("faiss in "):
        assert time.monotonic() < deadline, state(client)
        time.sleep(0.1)
    assert recalled(client, "dog")[0] == "full"
    assert "My dog is called Rex" in recalled(client, "dog")[1]
    assert client.get("/memory/check").raise_for_status().json()["ok"]
    client.close()
    assert house.stop() == 0
    moved = agentflow(house, "memory", "move", "conversations", "--to", "qdrant", "--location", "SSD")
    assert moved.returncode == 0, moved.stderr
    assert "vectors proven" in moved.stdout
    assert "conversations: {backend: qdrant, location: SSD}" in file.read_text()
    checked = agentflow(house, "memory", "check")
    assert (checked.returncode, "of the ten nearest" in checked.stdout) == (0, True)
