"""What benchmarks/doors.py compares: agentflow, a bare FastAPI, and Aegra, each a process over its own database.

All three serve one graph of five steps that answer at once, under the same two addresses. Aegra is measured with the
interpreter that `--aegra` names (requirements/aegra.txt), with its settings as they are, but quiet.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

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
import os
from contextlib import asynccontextmanager
import orjson
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
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

def shown(values):
    return {**values, "messages": [message_to_dict(one) for one in values["messages"]]}

@app.post("/threads/{thread}/runs/wait")
async def wait(thread: str, body: dict):
    return shown(await app.state.graph.ainvoke(body["input"], {"configurable": {"thread_id": thread}}))

@app.post("/threads/{thread}/runs/stream")
async def stream(thread: str, body: dict):
    async def events():
        config = {"configurable": {"thread_id": thread}}
        async for values in app.state.graph.astream(body["input"], config, stream_mode="values"):
            yield b"event: values\\ndata: " + orjson.dumps(shown(values)) + b"\\n\\n"
    return StreamingResponse(events(), media_type="text/event-stream")
"""
CONFIG = """
model: {engine: double}
embedder: {kind: fake}
roles: {}
"""
GRAPHS = '{"dependencies": ["."], "graphs": {"steps": "./steps.py:graph"}}'


@dataclass(frozen=True)
class Server:
    """A server under measurement; `database` is its own."""

    name: str
    address: str
    process: psutil.Process
    database: str

    def spent(self) -> float:
        """Processor seconds so far, of the process and its children."""
        times = [one.cpu_times() for one in self._all()]
        return sum(one.user + one.system for one in times)

    def resident(self) -> float:
        """MiB that it holds in memory."""
        return sum(one.memory_info().rss for one in self._all()) / (1 << 20)

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def prepared(folder: Path) -> None:
    """Write what the servers load."""
    (folder / "steps.py").write_text(GRAPH)
    (folder / "bare.py").write_text(BARE)
    (folder / "agentflow.yaml").write_text(CONFIG)
    for name in ("langgraph.json", "aegra.json"):
        (folder / name).write_text(GRAPHS)


@asynccontextmanager
async def ours(folder: Path, dsn: str, workers: int) -> AsyncIterator[Server]:
    """`agentflow serve`."""
    database = _database(dsn, "ours")
    command = [sys.executable, "-m", "agentflow", "serve", "--port", "8179", "--graphs", "langgraph.json"]
    command += ["--workers", str(workers)] if workers > 1 else []
    async with _running("agentflow", 8179, command, folder, {"DATABASE_URL": database}, database) as server:
        log = folder / "agentflow.log"
        while len(re.findall(r"listens on", log.read_text())) < workers:  # noqa: ASYNC110 - from outside
            await asyncio.sleep(0.1)
        yield server


@asynccontextmanager
async def bare(folder: Path, dsn: str) -> AsyncIterator[Server]:
    """FastAPI with LangGraph's own saver: no runs, no order per thread, no events that outlive their reader."""
    database = _database(dsn, "bare")
    command = [sys.executable, "-m", "uvicorn", "bare:app", "--port", "8178", "--log-level", "warning"]
    async with _running("bare", 8178, command, folder, {"DSN": database}, database) as server:
        yield server


@asynccontextmanager
async def aegra(folder: Path, dsn: str, python: str) -> AsyncIterator[Server]:
    """Aegra, without Redis: one process, as agentflow's."""
    database = _database(dsn, "aegra")
    parts = conninfo_to_dict(database)
    url = f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}&port={parts['port']}"
    command = [python, "-m", "uvicorn", "aegra_api.main:app", "--port", "8177", "--log-level", "warning"]
    variables = {"DATABASE_URL": url, "AEGRA_CONFIG": str(folder / "aegra.json"), "LOG_LEVEL": "WARNING"}
    async with _running("Aegra", 8177, command, folder, variables, database) as server:
        yield server


def _database(dsn: str, name: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    return make_conninfo(dsn, dbname=name)


@asynccontextmanager
async def _running(
    name: str, port: int, command: Sequence[str], folder: Path, variables: Mapping[str, str], database: str
) -> AsyncIterator[Server]:
    """The process, once it answers. Its output is in NAME.log."""
    log = folder / f"{name.lower()}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **variables}, stdout=out, stderr=out
        )
    address = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient() as http:
            while not await _answers(http, address):
                assert process.poll() is None, log.read_text()[-2000:]
                await asyncio.sleep(0.1)
        yield Server(name, address, psutil.Process(process.pid), database)
    finally:
        process.terminate()
        process.wait(60)


async def _answers(http: httpx.AsyncClient, address: str) -> bool:
    try:
        return (await http.get(f"{address}/openapi.json")).status_code == 200
    except httpx.HTTPError:
        return False
