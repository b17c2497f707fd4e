"""Many event streams at once, held by one server for a minute: errors, events, the server's memory and descriptors.

    python benchmarks/streams.py [--streams 1000] [--seconds 60] [--pace 0.5] [--resumable]

Every stream is a turn of our own graph on a thread of its own; a double of vLLM, in a process of its own as the clients
are, speaks `pace` words a second. Memory must not grow while streams go on, and not with their number of events.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres

DOUBLE = """
import signal
from agentflow.fakes.vllm import Options, serve
with serve(Options(tokens_per_second={pace}, max_model_len=65536)) as double:
    print(double.url, flush=True)
    signal.pause()
"""
CONFIG = """
model: {{engine: vllm, base: base, url: {url}, timeouts: {{total: 3600}}}}
embedder: {{kind: fake}}
roles: {{}}
server: {{port: 0, drain: 2, turn_seconds: 3600}}
limits: {{rate: null, requests: {streams}, running: {streams}}}
"""
UP = 30.0
"""Seconds over which the clients come."""
PATIENCE = 90.0
"""Seconds at most until every one of them has heard something; the measured time begins then."""


@dataclass
class Heard:
    """What the clients have heard."""

    events: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    open: int = 0


@contextmanager
def started(command: list[str], folder: Path, pattern: str, **environment: str) -> Iterator[tuple[int, str]]:
    """A process, and what it says its address is."""
    out = folder / f"{time.monotonic_ns()}.log"
    with out.open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        while not (found := re.search(pattern, out.read_text())):
            assert process.poll() is None, out.read_text()[-2000:]
            time.sleep(0.1)
        yield process.pid, found[0]
    finally:
        process.terminate()
        process.wait(60)


async def stream(port: int, number: int, words: int, heard: Heard, *, resumable: bool) -> None:
    """One client: one run, read to its end."""
    said = " ".join(f"w{place}" for place in range(words))
    body = {
        "assistant_id": "agent",
        "input": {"messages": [{"role": "user", "content": said}]},
        "stream_mode": ["messages-tuple"],
        "if_not_exists": "create",
        "stream_resumable": resumable,
    }
    text = json.dumps(body).encode()
    path = f"/threads/00000000-0000-4000-8000-{number:012x}/runs/stream"
    began, events = time.perf_counter(), 0
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + text)
        status = (await reader.readline()).decode().strip()
        if " 200 " not in status:
            heard.errors.append(status)
            return
        heard.open += 1
        async for line in reader:
            if line.startswith(b"event: messages"):
                events += 1
                if events == 1:
                    heard.first.append(time.perf_counter() - began)
            elif line.startswith(b"event: error"):
                heard.errors.append((await reader.readline()).decode()[:200])
        heard.open -= 1
        heard.events.append(events)
        writer.close()
    except (OSError, ValueError) as error:
        heard.errors.append(repr(error))


def taken(pid: int) -> tuple[float, int]:
    """A process's resident memory in MiB, and its open descriptors."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def measured(address: str, pid: int, given: argparse.Namespace) -> None:
    heard, port = Heard(), int(address.rsplit(":", 1)[1])
    words = max(1, round((given.seconds + UP + PATIENCE) * given.pace))
    tell("before", pid, heard)
    clients = []
    for number in range(given.streams):
        clients.append(asyncio.create_task(stream(port, number, words, heard, resumable=given.resumable)))
        await asyncio.sleep(UP / given.streams)
    until = time.perf_counter() + PATIENCE
    while len(heard.first) < given.streams and time.perf_counter() < until:  # noqa: ASYNC110 - counted elsewhere
        await asyncio.sleep(0.5)
    for moment in ("start", "a quarter", "middle", "three quarters"):
        tell(moment, pid, heard)
        await asyncio.sleep(given.seconds / 4)
    tell("end", pid, heard)
    await asyncio.gather(*clients)
    await asyncio.sleep(2)
    tell("after", pid, heard)
    print(f"{len(heard.events)} of {given.streams} streams came to their end, {len(heard.errors)} errors")
    for error in sorted(set(heard.errors))[:5]:
        print(f"  {heard.errors.count(error)} x {error}")
    if heard.events:
        few, many = min(heard.events), max(heard.events)
        short = sum(one < words for one in heard.events)
        print(
            f"events per stream: {few} to {many}, median {statistics.median(heard.events):g}; {short} broke off"
        )
        print(f"first event: median {statistics.median(heard.first):.2f} s, latest {max(heard.first):.2f} s")


def tell(moment: str, pid: int, heard: Heard) -> None:
    memory, descriptors = taken(pid)
    print(f"{moment:>15}: {heard.open:5} streams  {memory:7.1f} MiB  {descriptors:5} descriptors", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pace", type=float, default=0.5, help="words a second, of each stream")
    parser.add_argument("--resumable", action="store_true", help="events are logged too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        postgres = EmbeddedPostgres(EmbeddedOptions(folder / "postgres"))
        dsn = postgres.start()
        try:
            double = [sys.executable, "-c", DOUBLE.format(pace=given.pace)]
            with started(double, folder, r"http://\S+") as (_, url):
                (folder / "agentflow.yaml").write_text(CONFIG.format(url=url, streams=given.streams + 24))
                serve = [sys.executable, "-m", "agentflow", "serve"]
                pattern = r"(?<=listens on )http://\S+"
                with started(serve, folder, pattern, DATABASE_URL=dsn) as (pid, address):
                    asyncio.run(measured(address, pid, given))
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
