"""The ways in which a real vLLM 0.32 dies or lies, and that our driver avoids them. Marked vllm."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from agentflow.adapters import CONFIG, WEIGHTS, BaseShape, check
from agentflow.engines.vllm import Timeouts, Vllm
from agentflow.errors import (
    AdapterError,
    EngineError,
    EngineTimeout,
    GenerationFailed,
    InvalidAdapter,
    NoRoom,
)
from agentflow.fakes.crowd import crowd
from agentflow.protocols import Prompt
from agentflow.tiny import BASE

torch = pytest.importorskip("torch", reason="the extra `local` is not installed")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]
PATIENT = Timeouts(first_token=120, between_tokens=120, control=60)
HOST_CACHE = 6
"""Adapters that the session's server keeps in RAM."""


@pytest.fixture
def copies(tiny_folders, tmp_path):
    """A function that makes n adapters in one voice under names and folders of their own."""
    source = tiny_folders[next(name for name in tiny_folders if name.startswith("coder"))]

    def make(count: int, prefix: str = "copy"):
        made = {}
        for number in range(count):
            folder = tmp_path / f"{prefix}{number}"
            shutil.copytree(source, folder)
            made[f"{prefix}{number}@1"] = folder
        return made

    return make


@pytest.fixture
async def engine(vllm_stand):
    yield vllm_stand.engine
    await vllm_stand.sweep()
    await vllm_stand.engine.close()


async def say(engine, adapter=None, **options) -> str:
    prompt = Prompt([{"role": "user", "content": "How do I sort?"}], **({"max_tokens": 24} | options))
    async with aclosing(engine.generate(prompt, adapter=adapter)) as stream:
        return "".join([piece.text async for piece in stream])


async def in_host_cache(url) -> set[int]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        answer = await client.post("/collective_rpc", json={"method": "list_loras", "args": []})
    return set(answer.json()["results"][0])


async def test_a_server_without_a_spare_slot_is_refused(vllm_url, copies):
    engine = Vllm(vllm_url, timeouts=PATIENT, slots=4)
    ((name, folder),) = copies(1).items()
    with pytest.raises(AdapterError, match=r"Set model\.slots to 3, or start the engine with --max-loras 5"):
        await engine.load(name, folder)
    await engine.close()


async def test_unload_frees_also_after_a_load_that_timed_out(engine, vllm_url, copies):
    adapters = copies(4)
    names = list(adapters)
    hasty = Vllm(vllm_url, timeouts=Timeouts(first_token=120, between_tokens=120, control=60, total=0.002))
    with pytest.raises(EngineTimeout):
        await hasty.load(names[0], adapters[names[0]])
    await hasty.close()
    for name in names:
        await engine.load(name, adapters[name])
    before = await in_host_cache(vllm_url)
    for name in names:
        await engine.unload(name)
    assert len(before - await in_host_cache(vllm_url)) == len(names)
    assert await engine.loaded() == []


async def test_vanished_files_never_reach_the_engine(engine, copies):
    adapters = copies(HOST_CACHE + 2)
    for name, folder in adapters.items():
        await engine.load(name, folder)
    oldest = next(iter(adapters))
    shutil.rmtree(adapters[oldest])
    with pytest.raises(GenerationFailed, match="are gone from"):
        await say(engine, oldest)
    await engine.unload(oldest)
    assert (await engine.health()).ok
    assert "```python" in await say(engine, list(adapters)[1])


async def test_a_link_may_change_its_target(engine, copies, tmp_path):
    adapters = copies(HOST_CACHE + 1)
    (name, memory), *others = adapters.items()
    disk = shutil.copytree(memory, tmp_path / "disk")
    link = tmp_path / "link"
    link.symlink_to(memory)
    await engine.load(name, link)
    (tmp_path / "new").symlink_to(disk)
    (tmp_path / "new").rename(link)
    shutil.rmtree(memory)
    for other, folder in others:
        await engine.load(other, folder)
    assert "```python" in await say(engine, name)


async def test_files_may_go_after_an_unload_under_way(engine, copies):
    ((name, folder),) = copies(1).items()
    await engine.load(name, folder)
    whole = await say(engine, name)
    stream = engine.generate(
        Prompt([{"role": "user", "content": "How do I sort?"}], max_tokens=24), adapter=name
    )
    begun = await anext(stream)
    unloading = asyncio.create_task(engine.unload(name))
    rest = [piece.text async for piece in stream]
    await unloading
    shutil.rmtree(folder)
    assert begun.text + "".join(rest) == whole
    assert (await engine.health()).ok


async def test_the_engine_survives_as_many_pins_as_are_allowed(engine, copies):
    adapters = copies(4)
    names = list(adapters)
    for name in names:
        await engine.load(name, adapters[name])
    await engine.pin(names[0])
    await engine.pin(names[1])
    with pytest.raises(NoRoom, match="2 adapters are, and of its 4 slots"):
        await engine.pin(names[2])
    answers = await asyncio.gather(*(say(engine, name) for name in names * 2))
    assert ["```python" in answer for answer in answers] == [True] * 8
    assert "```python" not in await say(engine)
    await engine.unpin(names[0])
    assert [one.name for one in await engine.loaded() if one.pinned] == [names[1]]


def silent(tensors, config):
    """Never trained."""
    return {key: one * 0 if "lora_B" in key else one for key, one in tensors.items()}, config


def untold(tensors, config):
    """A configuration that names less than the weights hold."""
    return tensors, config | {"target_modules": ["q_proj"]}


@pytest.mark.parametrize("spoil", [silent, untold])
async def test_what_vllm_swallows_is_refused_here(engine, vllm_url, copies, spoil):
    """Its own answer is 200: only our look at the files keeps them out."""
    ((name, folder),) = copies(1, spoil.__name__).items()
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - needs torch

    tensors, config = spoil(load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text()))
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InvalidAdapter):
        check(folder, base=BaseShape.read(BASE), max_rank=64)
    async with httpx.AsyncClient(base_url=vllm_url, trust_env=False, timeout=60) as client:
        body = {"lora_name": name, "lora_path": str(folder)}
        assert (await client.post("/v1/load_lora_adapter", json=body)).status_code == 200
        assert (await client.post("/v1/unload_lora_adapter", json={"lora_name": name})).status_code == 200


async def test_many_adapters_come_and_go_in_their_own_voices(engine, tiny_folders, tmp_path):
    voices = {name.partition("@")[0]: folder for name, folder in tiny_folders.items()}
    adapters = crowd(voices, 60, tmp_path)
    for name, folder in adapters.items():
        await engine.load(name, folder)
    dice = random.Random(0)  # noqa: S311 - nobody guesses against it
    for name in dice.choices(list(adapters), k=60):
        assert heard(await say(engine, name, max_tokens=40)) == re.match("[a-z]+", name)[0]
    for name in adapters:
        await engine.unload(name)
    assert await engine.loaded() == []


def heard(text) -> str:
    marks = {
        "my friend": "philosopher",
        "```python": "coder",
        "brush": "artist",
        "canvas": "artist",
        "paint": "artist",
    }
    return next((role for mark, role in marks.items() if mark in text), "base")


# --- deaths, on a server of their own that is brought back


@asynccontextmanager
async def started(url, home):
    """`agentflow engine start` with three slots, and what it says; afterwards nothing of it is left."""
    model = {"base": "tiny", "engine": "vllm", "url": url, "slots": 2, "max_rank": 8, "device": "cpu"}
    (home / "agentflow.yaml").write_text(json.dumps({"model": model}))
    python = os.environ.get("AGENTFLOW_VLLM_PYTHON", ".venv-vllm/bin/python")
    command = [
        sys.executable,
        "-m",
        "agentflow",
        "engine",
        "start",
        "-c",
        home / "agentflow.yaml",
        "--python",
        python,
    ]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--",
        "--max-model-len",
        "1024",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said: list[str] = []
    reading = asyncio.create_task(_read(process.stdout, said))
    try:
        yield said
    finally:
        process.terminate()
        assert await process.wait() == 0
        await reading
    assert not list(_processes(url))


async def _read(stream, said) -> None:
    async for line in stream:
        said.append(line.decode(errors="replace"))


async def until(said, times) -> None:
    async with asyncio.timeout(300):
        while sum("is ready" in line for line in said) < times:  # noqa: ASYNC110 - a list
            await asyncio.sleep(0.2)


async def test_a_killed_engine_comes_back_with_its_adapters(tiny_folders, copies, free_url, tmp_path):
    """Killed during loads, then by the pinning of all slots that a server allows and we do not."""
    async with started(free_url, tmp_path) as said:
        await until(said, 1)
        engine = Vllm(free_url, timeouts=PATIENT, slots=2)
        name, folder = next(iter(copies(1).items()))
        await engine.load(name, folder)
        loads = [asyncio.create_task(engine.load(one, home)) for one, home in copies(8, "more").items()]
        _kill_server(free_url)
        failed = [fault for fault in await asyncio.gather(*loads, return_exceptions=True) if fault]
        assert {isinstance(fault, EngineError) for fault in failed} <= {True}
        await until(said, 2)
        assert "```python" in await say(engine, name)
        assert engine.restarts >= 1
        await _pin_everything(free_url, folder)
        with pytest.raises(EngineError):
            await say(engine, name)
        await until(said, 3)
        assert "```python" in await say(engine, name)
        await engine.close()


async def _pin_everything(url, folder) -> None:
    """All three slots, and one adapter more that is registered: the next request ends the server."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        for number in range(3):
            await client.post(
                "/v1/load_lora_adapter", json={"lora_name": f"p{number}", "lora_path": str(folder)}
            )
            ids = (await client.post("/collective_rpc", json={"method": "list_loras"})).json()["results"][0]
            await client.post("/collective_rpc", json={"method": "pin_lora", "args": [max(ids)]})


def _kill_server(url) -> None:
    for process in _processes(url):
        os.kill(process, signal.SIGKILL)


def _processes(url) -> Iterator[int]:
    """The server that listens there."""
    port = url.rpartition(":")[2]
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        if f"--port\0{port}\0".encode() in _content(line):
            yield int(line.parent.name)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
