"""The protocol's door beside a bare FastAPI with LangGraph's own Postgres saver, and Aegra: one graph, one Postgres.

    python benchmarks/doors.py [--seconds 5] [--clients 1 64] [--workers 1] [--rounds 1] [--aegra PYTHON]

All serve a graph of five steps that answer at once (doors_servers.py). The bare server keeps no runs, no order per
thread and no events: it is what a few lines give. Postgres commits durably in all; our checkpoints may lag behind a
crash of the operating system, because the ledger has what they are made from. Per round every server is asked in turn;
ratios of one run are to be trusted, not figures. `wait` is `/threads/ID/runs/wait`, `stream` is
`/threads/ID/runs/stream` read to its end; every client has a thread of its own for five runs, then the next.
Without `--aegra` (an interpreter that has requirements/aegra.txt) its lines are left out.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

import doors_servers as servers
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
from doors_servers import Server

BODY = {
    "assistant_id": "steps",
    "input": {"messages": [{"role": "user", "content": "hi"}]},
    "if_not_exists": "create",
}
STREAMED = {**BODY, "stream_mode": "values"}
COUNTED = 100
"""Runs whose statements are counted."""


@dataclass
class Measured:
    """One server in one cell of the table, over all rounds."""

    runs: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    spent: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.runs / self.seconds

    @property
    def median(self) -> float:
        """Milliseconds."""
        return statistics.median(self.spent) * 1000


async def asked(server: Server, way: str, clients: int, seconds: float, into: Measured) -> None:
    """Runs of so many clients at once."""
    began, processor = time.perf_counter(), server.spent()
    end = began + seconds

    async def client() -> None:
        async with httpx.AsyncClient(base_url=server.address, timeout=120) as http:
            thread, number = "", 0
            while time.perf_counter() < end:
                if number % 5 == 0:
                    thread = "00000000-0000-4000-8000-" + os.urandom(6).hex()
                number += 1
                at = time.perf_counter()
                await run(http, way, thread)
                into.spent.append(time.perf_counter() - at)

    before = len(into.spent)
    await asyncio.gather(*[client() for _ in range(clients)])
    into.runs += len(into.spent) - before
    into.seconds += time.perf_counter() - began
    into.processor += server.spent() - processor


async def run(http: httpx.AsyncClient, way: str, thread: str) -> None:
    """One run to its end."""
    answer = await http.post(f"/threads/{thread}/runs/{way}", json=BODY if way == "wait" else STREAMED)
    assert answer.status_code == 200, answer.text
    assert "heard" in answer.text, answer.text


async def first_event(server: Server, times: int = 50) -> float:
    """Median milliseconds from the answer's head, which is sent once the run is accepted, to the first event."""
    spent = []
    async with httpx.AsyncClient(base_url=server.address, timeout=60) as http:
        for _ in range(times):
            async with http.stream("POST", "/runs/stream", json=BODY) as answer:
                began = time.perf_counter()
                async for _line in answer.aiter_lines():
                    spent.append(time.perf_counter() - began)
                    break
    return statistics.median(spent) * 1000


async def statements(server: Server, dsn: str, log: Path) -> float:
    """Statements that one waited run sends to Postgres, counted in its log; those of the background are among them."""
    _logging(dsn, server, "all")
    async with httpx.AsyncClient(base_url=server.address, timeout=60) as http:
        await run(http, "wait", "00000000-0000-4000-8000-000000000001")
        before = log.stat().st_size
        for number in range(COUNTED):
            await run(http, "wait", f"00000000-0000-4000-8000-{number // 5:012x}")
    with log.open("rb") as lines:
        lines.seek(before)
        found = sum(b"LOG:  execute " in line or b"LOG:  statement: " in line for line in lines)
    _logging(dsn, server, "none")
    return found / COUNTED


def _logging(dsn: str, server: Server, what: str) -> None:
    """Which statements Postgres writes to its log, from now on."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"alter system set log_statement = '{what}'".encode())
        connection.execute("select pg_reload_conf()")
    time.sleep(0.2)
    assert server.process.is_running()


async def table(way: str, found: Sequence[Server], given: argparse.Namespace) -> None:
    """Every server at every number of clients, one after the other in every round."""
    print(
        f"\n{way:<6} {'clients':>8} {'server':>10} {'runs/s':>8} {'ratio':>6} {'ms':>9} {'ratio':>6} {'CPU ms/run':>11}"
    )
    for clients in given.clients:
        cells = {server.name: Measured() for server in found}
        for _ in range(given.rounds):
            for server in found:
                await asked(server, way, clients, given.seconds, cells[server.name])
        other = cells["bare"]
        for name, cell in cells.items():
            print(
                f"{way:<6} {clients:>8} {name:>10} {cell.rate:>8.1f} {cell.rate / other.rate:>6.2f} "
                f"{cell.median:>9.1f} {cell.median / other.median:>6.2f} {cell.processor * 1000 / cell.runs:>11.1f}"
            )


@asynccontextmanager
async def running(folder: Path, dsn: str, given: argparse.Namespace) -> AsyncIterator[list[Server]]:
    """All servers that are compared."""
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(servers.ours(folder, dsn, given.workers)),
            await stack.enter_async_context(servers.bare(folder, dsn)),
        ]
        if given.aegra:
            found.append(await stack.enter_async_context(servers.aegra(folder, dsn, given.aegra)))
        else:
            print("Aegra is left out: name an interpreter that has requirements/aegra.txt with --aegra")
        yield found


async def compared(folder: Path, dsn: str, log: Path, given: argparse.Namespace) -> None:
    """The whole comparison, printed."""
    async with running(folder, dsn, given) as found:
        for server in found:
            await asked(server, "wait", 2, 1, Measured())
            await asked(server, "stream", 2, 1, Measured())
        idle = {server.name: server.resident() for server in found}
        print(f"first event after acceptance: {await first_event(found[0]):.1f} ms")
        for way in ("wait", "stream"):
            await table(way, found, given)
        print(f"\n{'server':>10} {'statements/run':>15} {'MiB before':>11} {'MiB after':>10}")
        for server in found:
            count = await statements(server, dsn, log)
            print(f"{server.name:>10} {count:>15.1f} {idle[server.name]:>11.0f} {server.resident():>10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 64])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--aegra", help="an interpreter that has requirements/aegra.txt")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentflow-doors-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        servers.prepared(folder)
        server = EmbeddedPostgres(EmbeddedOptions(folder / "postgres"))
        dsn = server.start()
        try:
            asyncio.run(compared(folder, dsn, folder / "postgres.log", given))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
