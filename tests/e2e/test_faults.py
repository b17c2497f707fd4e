"""What users meet when something outside is missing, dead or wrong: a reason and a way out, never a traceback."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = """
roles:
  philosopher: {lora_path: /mnt/vrag/philosopher, location: VRAM}
  coder:       {lora_path: /home/user/lora/coder, location: RAM}
  artist:      {lora_path: /mnt/slowdisk/artist, location: disk}
"""
DEAD = 'model: {engine: vllm, url: "http://127.0.0.1:9"}'


def agentflow(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentflow", *arguments]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=240, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def with_config(house, old: str, new: str) -> None:
    config = house.folder / "agentflow.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))


def test_config_check_names_every_adapter_that_is_not_there(tmp_path) -> None:
    (tmp_path / "agentflow.yaml").write_text(BLOCK)
    checked = agentflow(tmp_path, "config", "check")
    assert checked.returncode == 1
    for line, folder in (
        (3, "/mnt/vrag/philosopher"),
        (4, "/home/user/lora/coder"),
        (5, "/mnt/slowdisk/artist"),
    ):
        assert f"line {line}: " in checked.stdout
        assert folder in checked.stdout
    assert "has 3 mistakes" in checked.stderr


def test_config_check_of_the_example_is_fine(tmp_path) -> None:
    assert agentflow(tmp_path, "init").returncode == 0
    assert agentflow(tmp_path, "init").returncode == 1
    checked = agentflow(tmp_path, "config", "check")
    assert (checked.returncode, checked.stdout.strip()) == (0, "agentflow.yaml is fine: 3 roles")


def test_without_a_file_the_way_out_is_named(tmp_path) -> None:
    refused = agentflow(tmp_path, "serve")
    assert refused.returncode == 1
    assert "`agentflow init` writes one" in refused.stderr


def test_a_database_that_does_not_answer_is_told_at_start(house, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/agentflow")
    refused = agentflow(house.folder, "serve", "--port", "0")
    assert refused.returncode == 1
    assert "Postgres does not answer" in refused.stderr


def test_any_server_serves_as_the_database(bare_house, database, monkeypatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    with bare_house.start() as client:
        assert client.post("/invoke", json={"input": "hello"}).status_code == 200
    assert not (bare_house.folder / ".agentflow").exists()


def test_an_engine_that_is_down_is_a_503_with_the_reason_and_the_turn_is_kept_as_failed(house) -> None:
    with_config(house, "model: {engine: double}", DEAD)
    with house.start() as client:
        answer = client.post(
            "/invoke", json={"input": "hello", "role": "coder"}, headers={"Idempotency-Key": "k"}
        )
        again = client.post(
            "/invoke", json={"input": "hello", "role": "coder"}, headers={"Idempotency-Key": "k"}
        )
        assert (answer.status_code, answer.json()["error"]) == (503, "EngineDown")
        assert "127.0.0.1:9" in answer.json()["message"]
        assert (again.status_code, again.json()["run_id"]) == (503, answer.json()["run_id"])
        assert client.get("/ready").status_code == 503


def test_an_engine_that_hangs_is_given_up_in_time(house) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        limits = "timeouts: {first_token: 300ms, between_tokens: 300ms, total: 1s}"
        with_config(house, "model: {engine: double}", f'model: {{engine: vllm, url: "{address}", {limits}}}')
        with house.start() as client:
            answer = client.post("/invoke", json={"input": "hello", "role": "base"})
    assert (answer.status_code, answer.json()["error"]) == (504, "EngineTimeout")


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_role_with_a_broken_adapter_says_so_and_the_others_answer(house, file) -> None:
    broken = house.folder / "broken"
    broken.mkdir()
    (broken / file).write_bytes(b"not what it should be")
    with_config(house, '"tiny:coder"', '"broken"')
    with house.start() as client:
        refused = client.post("/invoke", json={"input": "hello", "role": "coder"})
        answered = client.post("/invoke", json={"input": "hello", "role": "philosopher"})
        ready = client.get("/ready").json()
    assert (refused.status_code, refused.json()["error"]) == (503, "InvalidAdapter")
    assert answered.status_code == 200
    assert list(ready["unusable_roles"]) == ["coder"]


def test_invoke_and_a_piped_chat_answer_without_a_server_of_their_own_staying(house) -> None:
    said = agentflow(house.folder, "invoke", "hello", "--role", "coder")
    assert (said.returncode, said.stdout.startswith("[coder]")) == (0, True)
    assert house.postgres() == []
