"""`agentflow demo` shows what it promises, and leaves nothing running."""

import re
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "agentflow", "demo"]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=480, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answer(shown: str, said: str) -> str:
    """What stands between a message and its timings, without the recalled lines."""
    block = shown.split(f"you  {said}\n", 1)[1].split("  accept ", 1)[0]
    return "\n".join(line for line in block.splitlines()[1:] if not line.startswith("  remembers "))


@pytest.mark.local
@pytest.mark.parametrize("role", ["coder", "artist", "philosopher"])
def test_what_monday_told_every_voice_answers_on_tuesday(shown, role) -> None:
    assert "Biscuit" in answer(shown, f"/{role} What is my dog called?")


@pytest.mark.local
def test_every_message_finds_its_role_and_tells_each_step(shown) -> None:
    roles = re.findall(r"^  (\w+) · \1@[0-9a-f]{12} · \w+ · (\w+)$", shown, re.MULTILINE)
    assert [role for role, _ in roles] == [
        "philosopher", "philosopher", "coder", "artist", "coder", "artist", "philosopher", "coder",
    ]  # fmt: skip
    step = r"accept \d+ · classify \d+ · select \d+ · recall \d+ · generate \d+ · remember \d+ ms"
    assert len(re.findall(step, shown)) == 8


def test_the_demo_ends_with_where_to_go_next(shown) -> None:
    assert shown.rstrip().endswith("agentflow chat          talks in this terminal")
