"""Every shell and Python example of docs/doors.md runs against a real server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "doors.md").read_text()
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
EXAMPLES = BLOCK.findall(PAGE)


@pytest.fixture(scope="module")
def address(standing):
    with standing.start():
        yield standing.address


@pytest.mark.parametrize(
    ("language", "example"), EXAMPLES, ids=[f"{n}-{one}" for n, (one, _) in enumerate(EXAMPLES)]
)
def test_the_example_runs(address, language, example) -> None:
    assert "http://127.0.0.1:8100" in example
    command = [*PROGRAMS[language], example.replace("http://127.0.0.1:8100", address)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "You said: " in done.stdout


def test_the_page_has_an_example_for_each_client() -> None:
    assert [language for language, _ in EXAMPLES] == ["sh", "sh", "python", "python"]
