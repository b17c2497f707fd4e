"""Thousands of adapters on one base: a real vLLM (CPU build) with few slots.

    python benchmarks/many_adapters.py [--adapters 2000] [--requests 2000] [--slots 8] [--python PATH]

Every adapter is registered (loaded, one token heard); then requests over all of them, popular ones more often,
eight at a time, are answered while the server pushes adapters out and reads them again; then adapters come and
go as the keeper moves them. Every answer must be in its adapter's voice. Memory is the proportional set size of
all the server's processes. Trust ratios: times depend on the machine.
"""

import argparse
import asyncio
import os
import random
import re
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable
from contextlib import aclosing
from pathlib import Path

from agentflow.engines.launcher import command
from agentflow.engines.launcher.supervisor import Supervisor
from agentflow.engines.vllm import Timeouts, Vllm
from agentflow.fakes.crowd import crowd
from agentflow.protocols import Prompt
from agentflow.tiny import BASE, FOLDER, VOICES

MARKS = {"philosopher": ("my friend",), "coder": ("```python",), "artist": ("brush", "canvas", "paint")}
HOST_SLOTS = 32
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR"}


class Bench:
    def __init__(self, engine: Vllm, adapters: dict[str, Path], url: str) -> None:
        self.engine, self.adapters, self.url = engine, adapters, url
        self.dice = random.Random(1)  # noqa: S311 - nobody guesses against it
        self.names = list(adapters)
        self.wrong: list[str] = []

    async def register(self) -> list[float]:
        return [await timed(self.engine.load(name, folder)) for name, folder in self.adapters.items()]

    async def request(self, count: int) -> list[float]:
        weights = [1 / (place + 1) for place in range(len(self.names))]
        wanted = iter(self.dice.choices(self.names, weights, k=count))
        seconds: list[float] = []

        async def reader() -> None:
            seconds.extend([await timed(self.ask(name)) for name in wanted])

        await asyncio.gather(*(reader() for _ in range(8)))
        return seconds

    async def churn(self, count: int, slots: int) -> list[float]:
        """Load, speak, unload: never more than `slots` at once."""
        for name in self.names:
            await self.engine.unload(name)
        present: list[str] = []
        seconds = []
        for name in self.dice.choices(self.names, k=count):
            if name not in present:
                if len(present) == slots:
                    await self.engine.unload(present.pop(0))
                seconds.append(await timed(self.engine.load(name, self.adapters[name])))
                present.append(name)
            await self.ask(name)
        for name in present:
            await self.engine.unload(name)
        return seconds

    async def ask(self, name: str) -> None:
        prompt = Prompt([{"role": "user", "content": "What do you think about the sea?"}], max_tokens=40)
        async with aclosing(self.engine.generate(prompt, adapter=name)) as pieces:
            text = "".join([piece.text async for piece in pieces])
        heard = [role for role, marks in MARKS.items() if any(mark in text for mark in marks)]
        if heard != [re.match(r"[a-z]+", name)[0]]:
            self.wrong.append(f"{name}: {text!r}")

    def memory(self) -> float:
        """MB of the server's process group."""
        return sum(_pss(group) for group in _processes(self.url)) / 1e3


async def timed(work: Awaitable[None]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def told(what: str, seconds: list[float]) -> str:
    quantiles = statistics.quantiles(seconds, n=100)
    return (
        f"{what:<28} {len(seconds):>6}  p50 {quantiles[49] * 1e3:7.1f} ms  p99 {quantiles[98] * 1e3:7.1f} ms"
    )


async def run(options: argparse.Namespace, home: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = command.Start(
        python=options.python, base=str(BASE), host="127.0.0.1", port=port, slots=options.slots,
        host_slots=HOST_SLOTS, rank=8, on_cpu=True, small=True,
        more=("--max-model-len", "1024", "--disable-uvicorn-access-log"),
    )  # fmt: skip
    url, stop, ready = f"http://127.0.0.1:{port}", asyncio.Event(), asyncio.Event()
    supervisor = Supervisor(
        command.vllm(start), url, os.environ | QUIET, lambda line: (print(line), ready.set())
    )
    serving = asyncio.create_task(supervisor.run(stop))
    try:
        await asyncio.wait(
            [serving, asyncio.ensure_future(ready.wait())], return_when=asyncio.FIRST_COMPLETED
        )
        await measure(options, home, url, supervisor)
    finally:
        stop.set()
        await serving


async def measure(options: argparse.Namespace, home: Path, url: str, supervisor: Supervisor) -> None:
    engine = Vllm(
        url, timeouts=Timeouts(first_token=120, between_tokens=120, control=60), slots=options.slots
    )
    adapters = crowd({voice: FOLDER / voice for voice in VOICES}, options.adapters, home)
    bench = Bench(engine, adapters, url)
    first = Bench(engine, dict(list(adapters.items())[:100]), url)
    print(told("the first 100 registered", await first.register()))
    await first.request(100)
    memory = [bench.memory()]
    print(told("all registered", await bench.register()))
    memory.append(bench.memory())
    print(told("requests over all of them", await bench.request(options.requests)))
    memory.append(bench.memory())
    print(told("loads while they come and go", await bench.churn(options.requests // 4, options.slots)))
    memory.append(bench.memory())
    left = await engine.loaded()
    await engine.close()
    print(
        f"memory of the server: {' -> '.join(f'{one:.0f}' for one in memory)} MB after 100, all, requests, churn "
        f"(x{memory[-1] / memory[0]:.3f})\n"
        f"{len(adapters)} adapters on {options.slots} slots: {len(bench.wrong)} wrong answers, "
        f"{supervisor.restarts} restarts, {engine.restarts} losses, {len(left)} left"
    )
    if bench.wrong or supervisor.restarts or left:
        raise SystemExit("\n".join(bench.wrong[:5]) or 1)


def _processes(url: str) -> list[int]:
    """The session that the listening process leads."""
    port = url.rpartition(":")[2]
    lines = {int(line.parent.name): _content(line) for line in Path("/proc").glob("[0-9]*/cmdline")}
    leader = next(
        process for process, line in lines.items() if f"--port\0{port}\0" in line and "vllm" in line
    )
    return [process for process in lines if _group(process) == leader]


def _group(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


def _pss(process: int) -> int:
    """KB."""
    found = re.search(r"^Pss:\s+(\d+)", _content(Path(f"/proc/{process}/smaps_rollup")), re.MULTILINE)
    return int(found[1]) if found else 0


def _content(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapters", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--python", default=".venv-vllm/bin/python")
    options = parser.parse_args()
    if not Path(options.python).is_file():
        raise SystemExit(f"no {options.python}: `make test-vllm` sets up the CPU build of vLLM")
    with tempfile.TemporaryDirectory(prefix="agentflow-crowd-") as home:
        asyncio.run(run(options, Path(home)))


if __name__ == "__main__":
    main()
