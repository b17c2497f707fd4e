"""What a conversation costs on disk: 200 turns of one thread through `agentflow serve`, table by table.

    python benchmarks/footprint.py [--turns 200] [--embedder onnx]

Questions of about 230 characters, answers about as long, of English words drawn by Zipf's law in the order of the
embedder's vocabulary, which is nearly that of their frequency; the whole product with its background work, on a fresh
embedded Postgres. Sizes are what the tables have grown by, indexes and TOAST included: once the vectors are there,
after a VACUUM as autovacuum does it; "compact" is after VACUUM FULL, and the rest free space that later turns fill.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psycopg
from tokenizers import Tokenizer

from agentflow.embedders.weights import MINILM, find_weights

CONFIG = """
model: {engine: double}
roles: {guide: {description: answers anything, generation: {max_tokens: 43}}}
embedder: {kind: %s}
server: {port: 0}
"""
SIZES = """
select n.nspname || '.' || coalesce(root.relname, c.relname), sum(pg_table_size(c.oid))::int8,
       sum(pg_indexes_size(c.oid))::int8
from pg_class c join pg_namespace n on n.oid = c.relnamespace
left join lateral (select p.relname from pg_inherits h join pg_class p on p.oid = h.inhparent
                   where h.inhrelid = c.oid) root on true
where c.relkind = 'r' and n.nspname in ('agentflow', 'langgraph') group by 1
"""
OWED = "select count(*) from outbox union all select count(*) from word where embedding is null"
LENGTH = 40
"""Words of a question."""
SETTLED = 90
"""Seconds that the background work may take."""
Sizes = dict[str, tuple[int, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--embedder", choices=("onnx", "fake"), default="onnx")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
        served(Path(name), given.embedder) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        measure(client, Path(name), given.turns)


@contextmanager
def served(folder: Path, embedder: str) -> Iterator[str]:
    """`agentflow serve` in a folder; yields its address."""
    folder.chmod(0o755)
    (folder / "agentflow.yaml").write_text(CONFIG % embedder)
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        command = [sys.executable, "-m", "agentflow", "serve"]
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)
    found = None
    while found is None:
        if process.poll() is not None:
            raise SystemExit((folder / "err").read_text())
        time.sleep(0.05)
        found = re.search(r"http://\S+", (folder / "out").read_text())
    try:
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def measure(client: httpx.Client, folder: Path, turns: int) -> None:
    texts = said(2 * turns + 1)
    client.post("/invoke", json={"input": next(texts)}).raise_for_status()
    with database(folder) as connection:
        settle(connection)
        for which in ("the first conversation", "one that finds the words known"):
            before = sizes(connection, "vacuum full")
            letters = converse(client, itertools.islice(texts, turns))
            settle(connection)
            print(f"{which}: {turns} turns, {letters / turns / 2:.0f} characters a message")
            told(before, sizes(connection, "vacuum analyze"), sizes(connection, "vacuum full"))


def converse(client: httpx.Client, texts: Iterator[str]) -> int:
    """One thread; returns how many characters were said."""
    thread, letters = None, 0
    for text in texts:
        answer = (
            client.post("/invoke", json={"input": text, "role": "guide", "thread_id": thread})
            .raise_for_status()
            .json()
        )
        thread, letters = answer["thread_id"], letters + len(text) + len(answer["output"])
    return letters


def said(number: int) -> Iterator[str]:
    """Questions; the same for every run."""
    known = Tokenizer.from_file(str(find_weights(MINILM, print) / "tokenizer.json")).get_vocab()
    words = [word for word in sorted(known, key=known.__getitem__) if word.isascii() and word.isalpha()][26:]
    chances = 1 / (np.arange(len(words)) + 2.7)
    random = np.random.default_rng(7)
    for _ in range(number):
        yield " ".join(
            words[drawn] for drawn in random.choice(len(words), size=LENGTH, p=chances / chances.sum())
        )


@contextmanager
def database(folder: Path) -> Iterator[psycopg.Connection]:
    sockets = (folder / ".agentflow/postgres/postmaster.pid").read_text().splitlines()[4]
    where = f"host={sockets} user=postgres dbname=agentflow options='-c search_path=agentflow,public'"
    with psycopg.connect(where, autocommit=True) as connection:
        yield connection


def settle(connection: psycopg.Connection) -> None:
    """Until no vector is owed."""
    deadline = time.monotonic() + SETTLED
    while any(count for (count,) in connection.execute(OWED)):
        if time.monotonic() > deadline:
            raise SystemExit(f"Vectors are still owed after {SETTLED} s.")
        time.sleep(0.2)


def sizes(connection: psycopg.Connection, how: str) -> Sizes:
    connection.execute(how.encode())
    return {name: (table, index) for name, table, index in connection.execute(SIZES)}


def told(empty: Sizes, vacuumed: Sizes, compact: Sizes) -> None:
    print(f"{'kB':<34}{'table':>8}{'indexes':>9}{'in all':>8}{'compact':>9}")
    rows = []
    for name in vacuumed:
        table, index = (new - old for new, old in zip(vacuumed[name], empty.get(name, (0, 0)), strict=True))
        rows.append((name, table, index, table + index, sum(compact[name]) - sum(empty.get(name, (0, 0)))))
    rows.sort(key=lambda row: -row[3])
    whole = ("in all", *(sum(row[column] for row in rows) for column in range(1, 5)))
    for name, *counts in itertools.chain((row for row in rows if row[3] or row[4]), [whole]):
        print(
            f"{name:<34}"
            + "".join(
                f"{count / 1000:>{width}.0f}" for count, width in zip(counts, (8, 9, 8, 9), strict=True)
            )
        )


if __name__ == "__main__":
    main()
