"""What a turn costs around the model: POST /invoke with an engine that answers at once, one turn at a time.

    python benchmarks/turn.py [--turns 200]

Prints the median of whole turns, its ratio to the bare engine's answer in the same run, and how the time divides
over the steps and the database. Everything else is real: HTTP, embedder, embedded Postgres with fsync.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from agentflow.cli import house
from agentflow.cli.terminal import steps
from agentflow.records.connections import Connection, Connections
from agentflow.settings import Environment, load, read_environment
from agentflow.wiring import Place

CONFIG = """
model: {engine: double}
roles:
  philosopher: {description: questions of meaning, examples: ["What is justice?"], lora_path: "tiny:philosopher"}
  coder: {description: programming, examples: ["Write a function"], lora_path: "tiny:coder"}
"""
TEXTS = (
    "What is justice?",
    "Write a function that adds",
    "Is lying ever right?",
    "Why does my loop never end?",
)


class Database:
    """Seconds in which a connection was in use, counted around every `use`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self) -> None:
        original = Connections.use

        @asynccontextmanager
        async def timed(connections: Connections) -> AsyncIterator[Connection]:
            began = time.perf_counter()
            async with original(connections) as connection:
                yield connection
            self.seconds += time.perf_counter() - began

        Connections.use = timed  # type: ignore[method-assign,assignment]


async def measure(turns: int) -> None:
    database = Database()
    database.watch()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = _place(Path(folder))
        async with AsyncExitStack() as stack:
            with steps("starting") as progress:
                address = await stack.enter_async_context(house.door(place, progress=progress))
            client = await stack.enter_async_context(house.client(address, {}))
            await _turns(client, 20)
            database.seconds = 0.0
            wholes, shares = await _turns(client, turns)
            share = database.seconds * 1000 / turns
            bare = await _bare(turns)
    _print(wholes, shares, share, bare)


def _place(folder: Path) -> Place:
    file = folder / "agentflow.yaml"
    file.write_text(CONFIG)
    environment = Environment({}, file, read_environment().cache, None)
    return Place(load(file, environment), environment, folder)


async def _turns(client: httpx.AsyncClient, turns: int) -> tuple[list[float], dict[str, list[float]]]:
    wholes: list[float] = []
    shares: dict[str, list[float]] = {}
    for number in range(turns):
        began = time.perf_counter()
        response = await client.post("/invoke", json={"input": f"{TEXTS[number % len(TEXTS)]} ({number})"})
        wholes.append((time.perf_counter() - began) * 1000)
        response.raise_for_status()
        for step, ms in response.json()["timings"].items():
            shares.setdefault(step, []).append(ms)
    return wholes, shares


async def _bare(turns: int) -> list[float]:
    """The same messages straight to the double: what no server can go below."""
    from agentflow.fakes.vllm import serve  # noqa: PLC0415

    found: list[float] = []
    with serve() as served:
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
            for number in range(turns):
                body = {
                    "model": "base",
                    "messages": [{"role": "user", "content": TEXTS[number % len(TEXTS)]}],
                }
                began = time.perf_counter()
                (await client.post("/v1/chat/completions", json=body)).raise_for_status()
                found.append((time.perf_counter() - began) * 1000)
    return found


def _print(wholes: list[float], shares: dict[str, list[float]], database: float, bare: list[float]) -> None:
    whole, floor = statistics.median(wholes), statistics.median(bare)
    print(f"{len(wholes)} turns, one at a time")
    print(f"whole turn      median {whole:6.1f} ms   p95 {sorted(wholes)[int(len(wholes) * 0.95)]:6.1f} ms")
    print(f"bare engine     median {floor:6.1f} ms   a turn is {whole / floor:.1f} x")
    for step, found in shares.items():
        print(f"  {step:<12}  median {statistics.median(found):6.1f} ms")
    inside = sum(statistics.median(found) for found in shares.values())
    print(f"  remember and the doors         {whole - inside:6.1f} ms")
    print(
        f"database        mean   {database:6.1f} ms of a turn, background work included ({database / whole:.0%})"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=200)
    asyncio.run(measure(parser.parse_args().turns))
