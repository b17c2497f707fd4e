"""The wheel holds everything a machine without the repository needs."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_carries_migrations_model_example_and_schema(tmp_path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {
        "agentflow/_migrations/env.py",
        "agentflow/_migrations/versions/0001_turns.py",
        "agentflow/tiny/base/model.safetensors",
        "agentflow/tiny/coder/adapter_model.safetensors",
        "agentflow/settings/agentflow.example.yaml",
        "agentflow/settings/agentflow.schema.json",
        "agentflow/py.typed",
    } <= names
