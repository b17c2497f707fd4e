"""Every example of docs/doors.md runs against a real server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "doors.md").read_text()
BLOCK = re.compile(r"^```(sh|python|js)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
EXAMPLES = BLOCK.findall(PAGE)
PACKAGES = "AGENTFLOW_TEST_NODE_PACKAGES"
"""A folder with node_modules, for examples that import packages of Node."""


@pytest.fixture(scope="module")
def address(standing):
    with standing.start():
        yield standing.address


@pytest.fixture
def command(tmp_path):
    """The command of an example; skips where Node, or what the example imports, is not there."""

    def of(language: str, example: str) -> list[str]:
        if language != "js":
            return [*PROGRAMS[language], example]
        node = shutil.which("node")
        if node is None:
            pytest.skip("no node on the path")
        file = tmp_path / "example.mjs"
        file.write_text(example)
        subprocess.run([node, "--check", str(file)], check=True)
        if "import " in example:
            if PACKAGES not in os.environ:
                pytest.skip(
                    f"npm install openai @langchain/langgraph-sdk @langchain/core, and name the folder in {PACKAGES}"
                )
            (tmp_path / "node_modules").symlink_to(Path(os.environ[PACKAGES]) / "node_modules")
        return [node, str(file)]

    return of


@pytest.mark.parametrize(
    ("language", "example"), EXAMPLES, ids=[f"{n}-{one}" for n, (one, _) in enumerate(EXAMPLES)]
)
def test_the_example_runs(address, command, language, example) -> None:
    assert "http://127.0.0.1:8100" in example
    program = command(language, example.replace("http://127.0.0.1:8100", address))
    done = subprocess.run(program, text=True, capture_output=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "You said: " in done.stdout


def test_the_page_has_an_example_for_each_client() -> None:
    assert [language for language, _ in EXAMPLES] == ["sh", "sh", "sh", "python", "python", "js", "js", "js"]
