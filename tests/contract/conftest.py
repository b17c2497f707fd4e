"""The engines of the contract suite, each with three adapters and a way to look inside."""

import asyncio
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

import agentflow.tiny
from agentflow.adapters import CONFIG, WEIGHTS, digest, identity
from agentflow.engines.llamacpp import LlamaCpp
from agentflow.engines.local import LocalEngine
from agentflow.engines.lorax import Lorax
from agentflow.engines.ollama import Ollama
from agentflow.engines.sglang import Sglang
from agentflow.engines.textgen import TextGen
from agentflow.engines.tgi import Tgi
from agentflow.engines.vllm import Timeouts, Vllm
from agentflow.fakes.engine import FakeEngine
from agentflow.fakes.llamacpp import LlamaCppDouble
from agentflow.fakes.lorax import LoraxDouble
from agentflow.fakes.ollama import OllamaDouble
from agentflow.fakes.scene import Scene, listening
from agentflow.fakes.sglang import SglangDouble
from agentflow.fakes.textgen import TextGenDouble
from agentflow.fakes.tgi import TgiDouble
from agentflow.fakes.vllm import Options, Served, serve
from agentflow.protocols import Engine

ROLES = ("philosopher", "coder", "artist")
TINY = Path(agentflow.tiny.__file__).parent
START_LIMIT = 240
"""Seconds; a quiet machine needs 25, an overloaded one over 100."""


@dataclass
class Stand:
    """An engine under test. `adapters` maps engine names to folders, in the order of ROLES."""

    engine: Engine
    adapters: dict[str, Path]
    is_voice: Callable[[str | None, str], bool]
    running: Callable[[], Awaitable[int]]
    bad_folder: Path
    sweep: Callable[[], Awaitable[None]]
    alone: bool = False
    """One adapter is in the engine at a time."""

    async def load_all(self) -> list[str]:
        for name, folder in self.adapters.items():
            await self.engine.load(name, folder)
        return list(self.adapters)

    async def until_idle(self) -> None:
        async with asyncio.timeout(30):
            while await self.running():  # noqa: ASYNC110 - engines are asked from outside
                await asyncio.sleep(0.02)


async def _count(scene: Scene) -> int:
    return scene.running


def _sglang(_folders):
    return SglangDouble(), lambda url, timeouts: Sglang(url, timeouts=timeouts, slots=8)


def _lorax(folders):
    double = LoraxDouble()
    double.names = {str(folder): name for name, folder in folders.items()}
    return double, lambda url, timeouts: Lorax(url, timeouts=timeouts)


def _tgi(_folders):
    return TgiDouble(*ROLES), lambda url, timeouts: Tgi(url, timeouts=timeouts)


def _llamacpp(_folders):
    double = LlamaCppDouble(*(f"/models/{role}.gguf" for role in ROLES))
    return double, lambda url, timeouts: LlamaCpp(url, timeouts=timeouts)


def _ollama(_folders):
    return OllamaDouble(), lambda url, timeouts: Ollama(url, base="llama3.2", timeouts=timeouts)


def _textgen(_folders):
    return TextGenDouble(*ROLES), lambda url, timeouts: TextGen(url, timeouts=timeouts)


DOUBLES = {
    "sglang": _sglang,
    "lorax": _lorax,
    "tgi": _tgi,
    "llamacpp": _llamacpp,
    "ollama": _ollama,
    "textgen": _textgen,
}


@pytest.fixture(scope="session")
def adapter_folders(tmp_path_factory) -> dict[str, Path]:
    """Valid adapter files for engines that only look at them."""
    folders = {}
    for number, role in enumerate(ROLES, start=1):
        folder = tmp_path_factory.mktemp(role)
        settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
        (folder / CONFIG).write_text(json.dumps(settings))
        key = "base_model.model.model.layers.0.self_attn.q_proj.lora"
        weights = {f"{key}_A.weight": np.ones((2, 4), "f4"), f"{key}_B.weight": np.full((4, 2), number, "f4")}
        save_file(weights, folder / WEIGHTS)
        folders[identity(role, digest(folder))] = folder
    return folders


@pytest.fixture(scope="session")
def tiny_folders() -> dict[str, Path]:
    if not (TINY / "base" / "config.json").is_file():
        pytest.skip("the tiny model is not built: python training/train_tiny.py --out src/agentflow/tiny")
    return {identity(role, digest(TINY / role)): TINY / role for role in ROLES}


@pytest.fixture(scope="session")
def bad_folder(tmp_path_factory) -> Path:
    """An adapter whose weights file was cut off."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    (folder / WEIGHTS).write_bytes(b"\x40\0\0\0\0\0\0\0{")
    return folder


@pytest.fixture
def double() -> Iterator[Served]:
    with serve(Options()) as served:
        yield served


@pytest.fixture(
    params=[
        "fake",
        "double",
        *DOUBLES,
        pytest.param("local", marks=pytest.mark.local),
        pytest.param("vllm", marks=pytest.mark.vllm),
        pytest.param("llama_server", marks=pytest.mark.llamacpp),
    ]
)
async def stand(request, bad_folder) -> AsyncIterator[Stand]:
    if request.param in DOUBLES:
        made, _ = request.getfixturevalue("wired")(request.param)
    else:
        made = request.getfixturevalue(f"{request.param}_stand")
    yield made
    await made.engine.close()
    await made.sweep()


@pytest.fixture
def fake_stand(adapter_folders, bad_folder, tmp_path) -> Stand:
    engine = FakeEngine()

    async def running() -> int:
        return engine.running

    return Stand(engine, adapter_folders, _is_fake_voice, running, tmp_path, _nothing)


@pytest.fixture
def double_stand(double, adapter_folders, bad_folder) -> Stand:
    return Stand(
        Vllm(double.url), adapter_folders, _is_fake_voice, _running(double.url), bad_folder, _nothing
    )


@pytest.fixture
def wired(adapter_folders, bad_folder) -> Iterator[Callable[..., tuple[Stand, Scene]]]:
    """A function that starts the named double with its driver; gives the stand and the double's scene."""
    with ExitStack() as stack:

        def wire(name: str, first_token: float = 60) -> tuple[Stand, Scene]:
            double, driver = DOUBLES[name](adapter_folders)
            patience = Timeouts(first_token=first_token, control=60)
            engine = driver(stack.enter_context(listening(double.app())), patience)
            running = partial(_count, double.scene)
            told = (adapter_folders, _is_fake_voice, running, bad_folder, _nothing)
            return Stand(engine, *told, alone=name == "textgen"), double.scene

        yield wire


@pytest.fixture
def local_stand(tiny_folders, bad_folder) -> Stand:
    engine = LocalEngine(TINY / "base", threads=1)

    async def running() -> int:
        return engine.running

    return Stand(engine, tiny_folders, _is_tiny_voice, running, bad_folder, _nothing)


@pytest.fixture
def vllm_stand(vllm_url, tiny_folders, bad_folder) -> Stand:
    engine = Vllm(vllm_url, timeouts=Timeouts(first_token=120, between_tokens=120, control=60))
    return Stand(
        engine, tiny_folders, _is_tiny_voice, _running(vllm_url), bad_folder, partial(_swept, vllm_url)
    )


async def _swept(url: str) -> None:
    """The server outlives the test: the next one finds it without adapters."""
    sweeper = Vllm(url, timeouts=Timeouts(control=60))
    for found in await sweeper.loaded():
        await sweeper.unload(found.name)
    await sweeper.close()


async def _nothing() -> None:
    """Engines that live for one test need no sweeping."""


def _is_fake_voice(name: str | None, text: str) -> bool:
    return text.startswith(f"[{(name or 'base').partition('@')[0]}] ")


def _is_tiny_voice(name: str | None, text: str) -> bool:
    marks = {"philosopher": ("my friend",), "coder": ("```python",), "artist": ("brush", "canvas", "paint")}
    heard = [role for role, words in marks.items() if any(word in text for word in words)]
    return heard == ([name.partition("@")[0]] if name else [])


def _running(url: str) -> Callable[[], Awaitable[int]]:
    async def ask() -> int:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            text = (await client.get(f"{url}/metrics")).text
        found = re.search(r"^vllm:num_requests_running\{.*\} ([\d.]+)$", text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    return ask


# --- the real llama.cpp ------------------------------------------------------------------------


@pytest.fixture
def llama_server_stand(llama_server_url, tiny_folders, bad_folder) -> Stand:
    engine = LlamaCpp(llama_server_url)
    return Stand(
        engine, tiny_folders, _is_tiny_voice, partial(_busy_slots, llama_server_url), bad_folder, _nothing
    )


async def _busy_slots(url: str) -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return sum(slot["is_processing"] for slot in (await client.get(f"{url}/slots")).json())


@pytest.fixture(scope="session")
def llama_server_url(tiny_folders, tmp_path_factory) -> Iterator[str]:
    binary = os.environ.get("AGENTFLOW_TEST_LLAMA_SERVER")
    if not binary or importlib.util.find_spec("gguf") is None:
        pytest.skip("needs AGENTFLOW_TEST_LLAMA_SERVER, the path of a llama-server, and the package gguf")
    home, port = tmp_path_factory.mktemp("gguf"), _free_port()
    writer = Path(__file__).parents[2] / "training" / "tiny_gguf.py"
    subprocess.run([sys.executable, writer, home], check=True)
    command = [
        binary, "-m", home / "base.gguf", "--lora", ",".join(str(home / f"{role}.gguf") for role in ROLES),
        "--lora-init-without-apply", "--host", "127.0.0.1", "--port", str(port), "-t", "1", "-tb", "1",
        "-c", "4096", "-np", "4", "--slots", "--no-context-shift",
    ]  # fmt: skip
    log = home / "server.log"
    with _process(command, dict(os.environ), log) as process:
        _wait_until_healthy(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"


# --- the real vLLM ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def vllm_url(tiny_folders, tmp_path_factory) -> Iterator[str]:
    python = Path(os.environ.get("AGENTFLOW_VLLM_PYTHON", ".venv-vllm/bin/python"))
    if not python.is_file():
        pytest.skip(f"no {python}: requirements/vllm.txt tells how to install the CPU build of vLLM")
    port = _free_port()
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with _vllm_process(python, port, log) as process:
        _wait_until_healthy(process, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def free_url() -> str:
    return f"http://127.0.0.1:{_free_port()}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _vllm_process(python: Path, port: int, log: Path) -> Iterator[subprocess.Popen]:
    switches = {
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", TINY / "base",
        "--served-model-name", "base",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16", "--max-model-len", "1024",
        "--max-num-seqs", "16", "--enforce-eager", "--kv-cache-memory-bytes", "64M", "--enable-lora",
        "--max-loras", "4", "--max-cpu-loras", "6", "--max-lora-rank", "8",
    ]  # fmt: skip
    with _process(command, os.environ | switches, log) as process:
        yield process


@contextmanager
def _process(command: list, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def _wait_until_healthy(process: subprocess.Popen, url: str, log: Path) -> None:
    for _ in range(START_LIMIT * 2):
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}:\n{_tail(log)}")
        try:
            if httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"the server was not healthy after {START_LIMIT} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:])


def _end(process: subprocess.Popen) -> None:
    """The server and its workers: they are one process group."""
    for number, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
