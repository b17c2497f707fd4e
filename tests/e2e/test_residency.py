"""Adapters of a running server: looked at, moved, and changed under it."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

FILE = """
model: {engine: double, slots: 2, ram: {max: 0}}
embedder: {kind: fake}
memory: {min_score: 0.0}
roles:
  philosopher: {description: justice and the meaning of life, lora_path: "tiny:philosopher", location: disk}
  coder: {description: python code and functions, lora_path: "tiny:coder", location: disk}
  plain: {description: small talk}
server: {port: 0}
"""


@pytest.fixture(scope="module")
def door(standing) -> Iterator[httpx.Client]:
    """One server for all of this file, with a role from the command line."""
    write(standing)
    with standing.start("--role", "critic=tiny:artist@DISK") as client:
        yield client


@pytest.fixture
def client(door, standing) -> httpx.Client:
    """The server, with the file as it was at the start."""
    write(standing)
    assert door.post("/config/reload").status_code == 200
    return door


def write(house, old: str = "", new: str = "") -> None:
    """The file of the house, with a change."""
    (house.folder / "agentflow.yaml").write_text(FILE.replace(old, new, 1))


def rows(client) -> dict[str, dict]:
    return {row["role"]: row for row in client.get("/residency").json()["adapters"]}


def tiers(client) -> dict[str, str]:
    return {role: row["tier"] for role, row in rows(client).items()}


def answered(client, role: str) -> int:
    return client.post("/invoke", json={"input": "hello", "role": role}).status_code


def test_an_adapter_is_warmed_pinned_and_unloaded_by_hand(client) -> None:
    assert tiers(client) == {"philosopher": "disk", "coder": "disk", "critic": "disk"}
    warmed = client.post("/residency/coder/warm", json={"wait": True}).json()
    assert (warmed["tier"], warmed["uses"]) == ("vram", 1)
    assert client.post("/residency/coder/pin").json()["pin"] == "vram"
    refused = client.post("/residency/coder/unload")
    assert (refused.status_code, refused.json()["error"]) == (409, "Conflict")
    assert client.post("/residency/coder/unpin").json()["pin"] is None
    assert client.post("/residency/coder/unload").json()["tier"] == "disk"


def test_what_has_no_adapter_is_neither_warmed_nor_pinned(client) -> None:
    assert client.post("/residency/nobody/warm").status_code == 422
    assert client.post("/residency/plain/pin").status_code == 409


def test_a_turn_tells_where_its_adapter_was_and_which_it_was(client) -> None:
    first = client.post("/invoke", json={"input": "hello", "role": "philosopher"})
    again = client.post("/invoke", json={"input": "hello", "role": "philosopher"})
    row = rows(client)["philosopher"]
    assert (first.headers["x-agentflow-tier"], again.headers["x-agentflow-tier"]) == ("disk", "vram")
    assert first.headers["x-agentflow-adapter"] == row["adapter"] == f"philosopher@{row['digest'][:12]}"


def test_roles_come_and_go_without_a_new_start(client, standing) -> None:
    assert answered(client, "coder") == 200
    write(
        standing,
        'coder: {description: python code and functions, lora_path: "tiny:coder"',
        "artist: {description: x",
    )
    told = client.post("/config/reload").json()
    assert told["changed"] == {"added": ["artist"], "removed": ["coder"], "changed": []}
    assert (answered(client, "artist"), answered(client, "coder"), answered(client, "critic")) == (
        200,
        422,
        200,
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("location: disk}", "location: tape}", "roles.philosopher.location"),
        ('"tiny:coder"', '"./nowhere"', "everything stays as it was"),
    ],
)
def test_an_edit_that_cannot_be_used_changes_nothing(client, standing, old, new, said) -> None:
    write(standing, old, new)
    refused = client.post("/config/reload")
    assert (refused.status_code, refused.json()["error"]) == (422, "ConfigError")
    assert said in refused.json()["message"]
    assert (answered(client, "coder"), answered(client, "philosopher")) == (200, 200)


def test_what_needs_a_new_start_is_told(client, standing) -> None:
    write(standing, "slots: 2", "slots: 3")
    assert client.post("/config/reload").json()["needs_restart"] == ["model"]


def table(house) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentflow", "adapters"]
    return subprocess.run(command, cwd=house.folder, text=True, capture_output=True, timeout=120, check=False)


def test_the_table_shows_the_running_server(client, standing) -> None:
    assert answered(client, "critic") == 200
    write(standing, "port: 0", f"port: {standing.address.rpartition(':')[2]}")
    shown = table(standing)
    assert shown.returncode == 0, shown.stderr
    for word in ("philosopher", "coder", "critic", "leaves VRAM"):
        assert word in shown.stdout


def test_without_a_server_the_table_says_how_to_get_one(house) -> None:
    write(house, "port: 0", "port: 1")
    told = table(house)
    assert (told.returncode, "agentflow serve" in told.stderr) == (1, True)
