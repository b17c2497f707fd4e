"""The protocol's door beside a bare FastAPI with LangGraph's own Postgres saver: same graph, same Postgres, same run.

    python benchmarks/doors.py [--seconds 5] [--clients 1 64] [--workers 1]

Both serve a graph of five steps that answer at once. The bare server keeps no runs, no order per thread and no
events: it is what a few lines give. Postgres commits durably in both; our checkpoints may lag behind a crash of the
operating system, because the ledger has what they are made from. Ratios of one run are to be trusted, not figures.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres

GRAPH = """
from typing import Annotated, Any
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    topic: str
    voice: str
    notes: list[str]

async def sort(state: State) -> dict[str, Any]: return {"topic": "talk"}
async def cast(state: State) -> dict[str, Any]: return {"voice": "plain"}
async def gather(state: State) -> dict[str, Any]: return {"notes": ["one"]}
async def speak(state: State) -> dict[str, Any]: return {"messages": [AIMessage("heard")]}
async def file_away(state: State) -> dict[str, Any]: return {}

builder = StateGraph(State)
steps = [sort, cast, gather, speak, file_away]
for step in steps: builder.add_node(step.__name__, step)
names = [step.__name__ for step in steps]
for before, after in zip([START, *names], [*names, END]): builder.add_edge(before, after)
graph = builder.compile()
"""
BARE = """
import os, uuid
from contextlib import asynccontextmanager
from fastapi import FastAPI
from langchain_core.messages import message_to_dict
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from steps import builder

@asynccontextmanager
async def life(app):
    kwargs = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(os.environ["DSN"], kwargs=kwargs, max_size=16) as pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        app.state.graph = builder.compile(checkpointer=saver)
        yield

app = FastAPI(lifespan=life)

@app.post("/threads/{thread}/runs/wait")
async def wait(thread: str, body: dict):
    values = await app.state.graph.ainvoke(body["input"], {"configurable": {"thread_id": thread}})
    return {**values, "messages": [message_to_dict(one) for one in values["messages"]]}
"""
CONFIG = """
model: {engine: double}
embedder: {kind: fake}
roles: {}
"""
BODY = {"assistant_id": "steps", "input": {"messages": [{"role": "user", "content": "hi"}]}}


@asynccontextmanager
async def ours(folder: Path, dsn: str, workers: int) -> AsyncIterator[str]:
    (folder / "agentflow.yaml").write_text(CONFIG)
    (folder / "langgraph.json").write_text('{"dependencies": ["."], "graphs": {"steps": "./steps.py:graph"}}')
    command = [sys.executable, "-m", "agentflow", "serve", "--port", "8179", "--graphs", "langgraph.json"]
    command += ["--workers", str(workers)] if workers > 1 else []
    log = folder / "ours.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "DATABASE_URL": dsn}, stdout=out, stderr=out
        )
    while len(re.findall(r"listens on", log.read_text())) < workers:
        assert process.poll() is None, log.read_text()[-2000:]
        await asyncio.sleep(0.1)
    try:
        yield "http://127.0.0.1:8179"
    finally:
        process.terminate()
        process.wait(60)


@asynccontextmanager
async def bare(folder: Path, dsn: str) -> AsyncIterator[str]:
    (folder / "bare.py").write_text(BARE)
    command = [sys.executable, "-m", "uvicorn", "bare:app", "--port", "8178", "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "DSN": dsn})
    async with httpx.AsyncClient() as http:
        for _ in range(300):
            try:
                await http.get("http://127.0.0.1:8178/docs")
                break
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
    try:
        yield "http://127.0.0.1:8178"
    finally:
        process.terminate()
        process.wait(20)


async def asked(address: str, clients: int, seconds: float, *, make: bool) -> tuple[float, float]:
    """(answers per second, median milliseconds); every client has a thread of its own."""
    spent: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        async with httpx.AsyncClient(base_url=address, timeout=120) as http:
            while time.perf_counter() < end:
                thread = "00000000-0000-4000-8000-" + os.urandom(6).hex()
                body = {**BODY, "if_not_exists": "create"} if make else BODY
                for _ in range(5):
                    began = time.perf_counter()
                    answer = await http.post(f"/threads/{thread}/runs/wait", json=body)
                    spent.append(time.perf_counter() - began)
                    assert answer.status_code == 200, answer.text
                    assert "__error__" not in answer.json(), answer.text

    began = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(clients)])
    return len(spent) / (time.perf_counter() - began), statistics.median(spent) * 1000


async def first_event(address: str, times: int = 50) -> float:
    """Median milliseconds from the answer's head, which is sent once the run is accepted, to the first event."""
    spent = []
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        for _ in range(times):
            async with http.stream("POST", "/runs/stream", json=BODY) as answer:
                began = time.perf_counter()
                async for _line in answer.aiter_lines():
                    spent.append(time.perf_counter() - began)
                    break
    return statistics.median(spent) * 1000


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 64])
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentflow-doors-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "steps.py").write_text(GRAPH)
        server = EmbeddedPostgres(EmbeddedOptions(folder / "postgres"))
        dsn = server.start()
        try:
            async with ours(folder, dsn, given.workers) as us, bare(folder, dsn) as them:
                for address, make in ((us, True), (them, False)):
                    await asked(address, 2, 1, make=make)
                print(f"first event after acceptance: {await first_event(us):.1f} ms")
                heads = ("ours /s", "bare /s", "ratio", "ours ms", "bare ms", "ratio")
                print(f"{'clients':>8}", *[f"{head:>9}" for head in heads])
                for clients in given.clients:
                    rate, median = await asked(us, clients, given.seconds, make=True)
                    other, slower = await asked(them, clients, given.seconds, make=False)
                    print(
                        f"{clients:>8} {rate:>9.1f} {other:>9.1f} {rate / other:>9.2f} "
                        f"{median:>9.1f} {slower:>9.1f} {median / slower:>9.2f}"
                    )
        finally:
            server.stop()


if __name__ == "__main__":
    asyncio.run(main())
