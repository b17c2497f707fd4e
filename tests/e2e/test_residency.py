"""Adapters of a running server: looked at, moved, and changed under it."""

import subprocess
import sys

import pytest

FILE = """
model: {engine: double, slots: 2, ram: {max: 0}}
embedder: {kind: fake}
memory: {min_score: 0.0}
roles:
  philosopher: {description: justice and the meaning of life, lora_path: "tiny:philosopher", location: disk}
  coder: {description: python code and functions, lora_path: "tiny:coder", location: disk}
  plain: {description: small talk}
server: {port: PORT}
"""


@pytest.fixture
def lines(house) -> str:
    """The file of the house, listening where it is started."""
    (house.folder / "agentflow.yaml").write_text(FILE.replace("PORT", "0"))
    return FILE


def rows(client) -> dict[str, dict]:
    return {row["role"]: row for row in client.get("/residency").json()["adapters"]}


def tiers(client) -> dict[str, str]:
    return {role: row["tier"] for role, row in rows(client).items()}


def answered(client, role: str) -> int:
    return client.post("/invoke", json={"input": "hello", "role": role}).status_code


def test_an_adapter_is_warmed_pinned_and_unloaded_by_hand(house, lines) -> None:
    with house.start() as client:
        assert tiers(client) == {"philosopher": "disk", "coder": "disk"}
        warmed = client.post("/residency/coder/warm", json={"wait": True}).json()
        assert (warmed["tier"], warmed["uses"]) == ("vram", 1)
        assert client.post("/residency/coder/pin").json()["pin"] == "vram"
        refused = client.post("/residency/coder/unload")
        assert (refused.status_code, refused.json()["error"]) == (409, "Conflict")
        assert client.post("/residency/coder/unpin").json()["pin"] is None
        assert client.post("/residency/coder/unload").json()["tier"] == "disk"
        assert client.post("/residency/nobody/warm").status_code == 422
        assert client.post("/residency/plain/pin").status_code == 409


def test_a_turn_tells_where_its_adapter_was_and_which_it_was(house, lines) -> None:
    with house.start() as client:
        first = client.post("/invoke", json={"input": "hello", "role": "coder"})
        again = client.post("/invoke", json={"input": "hello", "role": "coder"})
        row = rows(client)["coder"]
    assert (first.headers["x-agentflow-tier"], again.headers["x-agentflow-tier"]) == ("disk", "vram")
    assert first.headers["x-agentflow-adapter"] == row["adapter"] == f"coder@{row['digest'][:12]}"


def test_roles_come_and_go_without_a_new_start(house, lines) -> None:
    with house.start() as client:
        assert answered(client, "coder") == 200
        changed = (
            lines.replace("PORT", "0").replace("coder: {", "artist: {").replace("tiny:coder", "tiny:artist")
        )
        (house.folder / "agentflow.yaml").write_text(changed)
        told = client.post("/config/reload").json()
        assert told["changed"] == {"added": ["artist"], "removed": ["coder"], "changed": []}
        assert (answered(client, "artist"), answered(client, "coder")) == (200, 422)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("location: disk}", "location: tape}", "roles.philosopher.location"),
        ('"tiny:coder"', '"./nowhere"', "everything stays as it was"),
    ],
)
def test_an_edit_that_cannot_be_used_changes_nothing(house, lines, before, after, said) -> None:
    with house.start() as client:
        (house.folder / "agentflow.yaml").write_text(lines.replace("PORT", "0").replace(before, after, 1))
        refused = client.post("/config/reload")
        assert (refused.status_code, refused.json()["error"]) == (422, "ConfigError")
        assert said in refused.json()["message"]
        assert (answered(client, "coder"), answered(client, "philosopher")) == (200, 200)


def test_what_needs_a_new_start_is_told(house, lines) -> None:
    with house.start() as client:
        (house.folder / "agentflow.yaml").write_text(
            lines.replace("PORT", "0").replace("slots: 2", "slots: 3")
        )
        assert client.post("/config/reload").json()["needs_restart"] == ["model"]


def test_the_table_of_a_running_server_and_a_role_of_the_command_line(house, lines) -> None:
    with house.start("--role", "critic=tiny:artist@DISK") as client:
        assert answered(client, "critic") == 200
        port = house.address.rpartition(":")[2]
        (house.folder / "agentflow.yaml").write_text(lines.replace("PORT", port))
        assert "critic" in client.post("/config/reload").json()["roles"]
        command = [sys.executable, "-m", "agentflow", "adapters"]
        shown = subprocess.run(
            command, cwd=house.folder, text=True, capture_output=True, timeout=60, check=False
        )
    assert shown.returncode == 0, shown.stderr
    assert "VRAM 1/2 slots" in shown.stdout
    for word in ("philosopher", "coder", "critic", "leaves VRAM"):
        assert word in shown.stdout


def test_without_a_server_the_table_says_how_to_get_one(house, lines) -> None:
    (house.folder / "agentflow.yaml").write_text(lines.replace("PORT", "1"))
    command = [sys.executable, "-m", "agentflow", "adapters"]
    told = subprocess.run(command, cwd=house.folder, text=True, capture_output=True, timeout=60, check=False)
    assert (told.returncode, "agentflow serve" in told.stderr) == (1, True)
