"""agentflow adapters check: what people read of adapter files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentflow import tiny
from agentflow.cli.commands import app


def checked(*words: str) -> tuple[int, str]:
    told = CliRunner().invoke(app, ["adapters", "check", *words])
    return told.exit_code, " ".join(told.stdout.split())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "agentflow.yaml"
    roles = {"good": {"lora_path": "tiny:coder"}, "bad": {"lora_path": "nowhere"}, "plain": {}}
    file.write_text(json.dumps({"roles": roles}))
    return file


def test_a_shipped_adapter_is_good_without_any_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, told = checked("tiny:coder")
    assert (status, "mistake" in told, "fit its 3 layers" in told) == (0, False, True)


def test_every_role_of_the_file_is_looked_at_and_one_mistake_is_a_status(file):
    status, told = checked("-c", str(file))
    assert status == 1
    for word in ("good = tiny:coder", "bad = nowhere", "does not exist"):
        assert word in told


def test_another_rank_limit_and_base_may_be_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, told = checked("tiny:coder", "--max-rank", "4", "--base", str(tiny.BASE))
    assert (status, "above the highest allowed rank 4" in told) == (1, True)


def test_folders_of_the_command_line_lie_where_the_shell_stands(tmp_path, monkeypatch):
    (tmp_path / "mine").symlink_to(tiny.FOLDER / "artist")
    monkeypatch.chdir(tmp_path)
    assert checked("mine")[0] == 0


def test_allowed_folders_hold_for_local_adapters_and_not_for_shipped_ones(tmp_path):
    (tmp_path / "mine").symlink_to(tiny.FOLDER / "artist")
    (tmp_path / "allowed").mkdir()
    roles = {"mine": {"lora_path": "mine"}, "shipped": {"lora_path": "tiny:coder"}}
    file = tmp_path / "agentflow.yaml"
    file.write_text(json.dumps({"roles": roles, "model": {"roots": ["allowed"]}}))
    status, told = checked("-c", str(file))
    assert (status, told.count("lies outside the allowed folders")) == (1, 1)
