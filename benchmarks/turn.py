"""What a turn costs around the model: POST /invoke with an engine that answers at once, one turn at a time.

    python benchmarks/turn.py [--turns 200]

Server, engine and client are three processes, as they are for users. Prints the median of whole turns, its ratio to
the bare engine's answer in the same run, and how the time divides over the steps and the database. Everything but the
model is real: HTTP, embedder, embedded Postgres with fsync.
"""

import argparse
import json
import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import psycopg

from agentflow.fakes.vllm import serve

CONFIG = """
model: {engine: vllm, url: "%s", slots: 3}
roles:
  philosopher: {description: questions of meaning, examples: ["What is justice?"], lora_path: "tiny:philosopher"}
  coder: {description: programming, examples: ["Write a function"], lora_path: "tiny:coder"}
server: {port: 0}
"""
TEXTS = (
    "What is justice?",
    "Write a function that adds",
    "Is lying ever right?",
    "Why does my loop never end?",
)
ACTIVE = "select active_time from pg_stat_database where datname = 'agentflow'"


def double(pipe: Connection) -> None:
    with serve() as served:
        pipe.send(served.url)
        pipe.recv()


@contextmanager
def engine() -> Iterator[str]:
    """The stand-in in a process of its own; yields its address."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=double, args=(there,))
    process.start()
    yield here.recv()
    here.send(None)
    process.join()


@contextmanager
def agentflow(folder: Path, engine_url: str) -> Iterator[str]:
    """`agentflow serve` in a folder; yields its address."""
    (folder / "agentflow.yaml").write_text(CONFIG % engine_url)
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "agentflow", "serve"], cwd=folder, stdout=out, stderr=err
        )
    found = None
    while found is None:
        if process.poll() is not None:
            raise SystemExit((folder / "err").read_text())
        time.sleep(0.05)
        found = re.search(r"http://\S+", (folder / "out").read_text())
    yield found[0]
    process.terminate()
    process.wait()


def turns(client: httpx.Client, count: int) -> list[float]:
    """Milliseconds of each whole turn, in a conversation of its own."""
    found = []
    for number in range(count):
        began = time.perf_counter()
        client.post("/invoke", json={"input": f"{TEXTS[number % 4]} ({number})"}).raise_for_status()
        found.append((time.perf_counter() - began) * 1000)
    return found


def steps(client: httpx.Client, count: int) -> dict[str, list[float]]:
    """Milliseconds of each step, as the events of streamed turns tell them."""
    found: dict[str, list[float]] = {}
    for number in range(count):
        body = {"input": f"{TEXTS[number % 4]} ({number})", "stream": True}
        with client.stream("POST", "/invoke", json=body) as response:
            lines = [line for line in response.iter_lines() if line]
        for event, data in zip(lines[::2], lines[1::2], strict=True):
            told = json.loads(data.removeprefix("data: "))
            if "ms" in told:
                found.setdefault(event.removeprefix("event: "), []).append(told["ms"])
    return found


def bare(url: str, count: int) -> list[float]:
    """The same messages straight to the engine: what no server can go below."""
    found = []
    with httpx.Client(base_url=url, trust_env=False) as client:
        for number in range(count):
            body = {"model": "base", "messages": [{"role": "user", "content": TEXTS[number % 4]}]}
            began = time.perf_counter()
            client.post("/v1/chat/completions", json=body).raise_for_status()
            found.append((time.perf_counter() - began) * 1000)
    return found


def busy(folder: Path) -> float:
    """Milliseconds in which the database has executed statements so far, by its own account."""
    sockets = (folder / ".agentflow/postgres/postmaster.pid").read_text().splitlines()[4]
    time.sleep(1.5)
    with psycopg.connect(f"host={sockets} user=postgres dbname=agentflow") as connection:
        row = connection.execute(ACTIVE).fetchone()
    return float(row[0]) if row else 0.0


def measure(count: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, engine() as url:
        folder = Path(name)
        with (
            agentflow(folder, url) as address,
            httpx.Client(base_url=address, timeout=60, trust_env=False) as client,
        ):
            turns(client, 20)
            before = busy(folder)
            wholes, floor = turns(client, count), bare(url, count)
            database = (busy(folder) - before) / count
            shares = steps(client, count)
    whole = statistics.median(wholes)
    print(f"{count} turns, one at a time, each in a new thread of one user")
    print(f"whole turn    median {whole:6.1f} ms   p95 {sorted(wholes)[int(count * 0.95)]:6.1f} ms")
    print(
        f"bare engine   median {statistics.median(floor):6.1f} ms   a turn is {whole / statistics.median(floor):.0f} x"
    )
    for step, found in shares.items():
        print(f"  {step:<10}  median {statistics.median(found):6.1f} ms")
    inside = sum(statistics.median(found) for found in shares.values())
    print(f"  between steps and at the door {whole - inside:6.1f} ms")
    print(f"database      mean   {database:6.1f} ms a turn, background work included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=200)
    measure(parser.parse_args().turns)
