"""kill -9 in the middle of an import, a move and a forgetting: given again, the command ends whole."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

ITEMS, CHUNKS = 1500, 300
LINES = [
    {"uid": f"chat/{n}", "speaker": "Ann", "content": f"Boat {n} sails to port {n % 97}.", "session": n // 100}
    for n in range(ITEMS)
] + [
    {"kind": "document", "name": "boats.md", "chunks": CHUNKS, "updated_at": "2026-01-01T00:00:00Z"},
    *({"kind": "chunk", "document": "boats.md", "content": f"Rule {n}", "place": n, "part": n + 1}
      for n in range(CHUNKS)),
]  # fmt: skip
FORGET = ("forget", "--everything", "user", "--yes")
MOVE = ("move", "conversations", "--to", "faiss", "--location", "SSD")
WAITS = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = 'agentflow'"
MEMORIES = "select count(*) from agentflow.memory"


def began(house, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agentflow", "memory", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=house.folder, text=True, start_new_session=True, **pipes)


def ended(house, *arguments: str) -> str:
    process = began(house, *arguments)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def dsn(house) -> str:
    sockets = (house.folder / ".agentflow" / "postgres" / "postmaster.pid").read_text().splitlines()[4]
    return f"host={sockets} user=postgres dbname=agentflow"


@contextmanager
def watched(house) -> Iterator[psycopg.Connection]:
    """A connection to the database of a command that begins just now."""
    deadline = time.monotonic() + 120
    while True:
        try:
            with psycopg.connect(dsn(house), autocommit=True) as connection:
                yield connection
                return
        except (OSError, IndexError, psycopg.OperationalError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def number(connection: psycopg.Connection, query: str) -> int:
    return connection.execute(query.encode()).fetchone()[0]


def killed(process: subprocess.Popen[str]) -> None:
    assert process.poll() is None, process.communicate()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)


@pytest.fixture
def stock(house):
    """A house with a file to import."""
    (house.folder / "stock.jsonl").write_text("".join(json.dumps(one) + "\n" for one in LINES))
    return house


def test_an_import_goes_on_where_it_was_killed(stock, until) -> None:
    process = began(stock, "import", "stock.jsonl")
    with watched(stock) as connection:
        until(lambda: number(connection, MEMORIES) >= 256)
        killed(process)
        kept = number(connection, MEMORIES)
    assert 256 <= kept < ITEMS + CHUNKS
    told = ended(stock, "import", "stock.jsonl")
    assert told == f"{ITEMS + CHUNKS - kept} imported (1 document), {kept} were there already\n"
    assert f"{ITEMS} memories, 1 document, {CHUNKS} chunks" in ended(stock, "export", "all.jsonl")


def test_a_forgetting_that_was_killed_has_forgotten_nothing(stock, until) -> None:
    ended(stock, "import", "stock.jsonl")
    process = began(stock, *FORGET)
    with watched(stock) as connection, connection.transaction():
        # Its receipt comes last: all else is gone for the one that is killed, and for nobody else.
        connection.execute("lock table agentflow.receipt in share mode")
        with psycopg.connect(dsn(stock), autocommit=True) as other:
            until(lambda: number(other, WAITS) > 0)
            killed(process)
            assert number(other, MEMORIES) == ITEMS + CHUNKS
    assert f"{ITEMS + CHUNKS} memories" in ended(stock, *FORGET)
    assert ended(stock, "list") == "nothing is remembered yet\n"
    assert ended(stock, "receipts").count("done") == 1
    assert "0 vectors are owed" in ended(stock, "check")


def test_a_move_goes_on_where_it_was_killed(stock, until) -> None:
    with stock.start() as client:
        lines = "".join(json.dumps(one) + "\n" for one in LINES[:ITEMS])
        client.post("/memory/import", content=lines).raise_for_status()
        until(lambda: client.get("/memory/stats").json()["owed"]["vectors"] == 0)
    stock.stop()
    process = began(stock, *MOVE)
    with watched(stock) as connection:
        until(lambda: number(connection, "select count(*) from agentflow.vector_place") == 1)
        with connection.transaction(), psycopg.connect(dsn(stock), autocommit=True) as other:
            connection.execute("lock table agentflow.vector_place in exclusive mode")
            until(lambda: number(other, WAITS) > 0)
            killed(process)
    assert f"answers, {ITEMS} vectors proven, sha256 " in ended(stock, *MOVE)
    assert f"conversations: {ITEMS} memories, searched by faiss" in ended(stock, "check")
