"""A real `agentflow serve` in a process of its own, on embedded Postgres and the stand-in engine."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from agentflow.records.embedded.cluster import mark_of
from agentflow.records.embedded.processes import leftovers

CONFIG = """
model: {engine: double}
embedder: {kind: fake}
memory: {min_score: 0.0}
router: {on_unknown: base, on_ambiguous: first}
roles:
  philosopher: {description: justice and the meaning of life, lora_path: "tiny:philosopher"}
  coder: {description: python code and functions, lora_path: "tiny:coder"}
server: {port: 0}
"""


@dataclass
class House:
    """An agentflow in a folder of its own; `start` again after a kill finds what the last one left."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    address: str = ""
    log: list[str] = field(default_factory=list)

    def start(self, *arguments: str, fault: str | None = None) -> httpx.Client:
        """Start and wait until it listens; returns a client."""
        environment = {**os.environ, **({"AGENTFLOW_FAULT": fault} if fault else {})}
        command = [sys.executable, "-m", "agentflow", "serve", *arguments]
        (self.folder / "out").unlink(missing_ok=True)  # workers of an earlier one may still write there
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("a") as err:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=out, stderr=err)
        found = None
        while found is None:
            assert self.process.poll() is None, f"did not start: {(self.folder / 'err').read_text()[-2000:]}"
            time.sleep(0.02)
            found = re.search(r"http://\S+", (self.folder / "out").read_text())
        self.address = found[0]
        return httpx.Client(base_url=self.address, timeout=120, trust_env=False)

    def wait_for_death(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=120)

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM: an orderly end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)

    def postgres(self) -> list[int]:
        """Process ids of the embedded server in this folder."""
        data = self.folder / ".agentflow" / "postgres"
        return [process.pid for process in leftovers(data, mark_of(data))]


@contextmanager
def built(folder: Path, config: str = CONFIG) -> Iterator[House]:
    """A house with nothing in it, in a folder that the server's own user may reach."""
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)
    (folder / "agentflow.yaml").write_text(config)
    made = House(folder)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()
    for pid in made.postgres():
        os.kill(pid, signal.SIGQUIT)


@pytest.fixture(scope="session")
def furniture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated data folder to copy: to make one takes as long as all the rest of a start."""
    with built(tmp_path_factory.mktemp("furniture")) as made:
        subprocess.run([sys.executable, "-m", "agentflow", "migrate"], cwd=made.folder, check=True)
        return made.folder / ".agentflow"


def furnished(made: House, furniture: Path) -> House:
    """The house with the data folder in it, its owner kept: shutil keeps none."""
    subprocess.run(["cp", "-a", furniture, made.folder], check=True)
    return made


@pytest.fixture
def bare_house(tmp_path: Path) -> Iterator[House]:
    """A house that has never been started."""
    with built(tmp_path) as made:
        yield made


@pytest.fixture
def house(bare_house: House, furniture: Path) -> House:
    return furnished(bare_house, furniture)


@pytest.fixture(scope="session")
def house_in() -> Callable[[Path, str], AbstractContextManager[House]]:
    """Build a house in a folder, from the text of an agentflow.yaml."""
    return built


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory, furniture: Path) -> Iterator[Callable[[str], House]]:
    """A function that makes a house with lines of its own in its file; it stands for a module's tests."""
    with ExitStack() as stack:

        def make(more: str) -> House:
            made = furnished(stack.enter_context(built(tmp_path_factory.mktemp("founded"))), furniture)
            (made.folder / "agentflow.yaml").write_text(CONFIG + more)
            return made

        yield make


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, furniture: Path) -> Iterator[House]:
    """A house that the tests of a module share."""
    with built(tmp_path_factory.mktemp("standing")) as made:
        yield furnished(made, furniture)


@pytest.fixture
async def client(served: str) -> AsyncIterator[LangGraphClient]:
    """The protocol's own SDK, to the house that a module calls `served`."""
    async with get_client(url=served) as found:
        yield found


@pytest.fixture
async def http(served: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served, timeout=120, trust_env=False) as found:
        yield found


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait for a fact, at most 180 s: a turn that lost its worker is taken over after its lease of 30 s."""

    def wait(fact: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 180
        while not fact():
            assert time.monotonic() < deadline, "it did not become true within 180 s"
            time.sleep(0.05)

    return wait
