"""What a conversation costs on disk: 200 turns of one thread through `agentflow serve`, table by table.

    python benchmarks/footprint.py [--turns 200] [--said chat long] [--embedder onnx]

"chat": questions of about 80 characters out of a phrase grammar, answers about as long, roles chosen by the router.
"long": 230 characters of English words drawn by Zipf's law in the order of the embedder's vocabulary, which is nearly
that of their frequency; the role is named. The whole product with its background work, each on a fresh embedded
Postgres. Sizes are what the tables have grown by, indexes and TOAST included, once the vectors are there and after a
VACUUM as autovacuum does it. A second thread fills space that updates in the first have left. What is known of words
is kept once for all threads of a collection, and is counted apart.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psycopg
from tokenizers import Tokenizer

from agentflow.embedders.weights import MINILM, find_weights

CONFIG = """
model: {engine: double}
roles:
  guide:
    description: answers anything
    examples: [what do you think of this, tell me about your day, that sounds lovely]
    generation: {max_tokens: LENGTH}
  coder:
    description: writes and repairs programs
    examples: [why does my test fail, write a function, fix this bug in my script]
    generation: {max_tokens: LENGTH}
  cook:
    description: plans meals
    examples: [what shall I cook tonight, how long does rice need, a recipe with lentils]
    generation: {max_tokens: LENGTH}
embedder: {kind: KIND}
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
DATABASE = "select pg_database_size(current_database())"
OWED = "select count(*) from outbox union all select count(*) from word where embedding is null"
VOCABULARY = ("agentflow.word", "agentflow.related")
LENGTH = 40
"""Words of a long question."""
ANSWERS = {"chat": 14, "long": 43}
"""Most words of an answer."""
SETTLED = 900
"""Seconds that the background work may take."""
SENTENCES = (
    "I went to {place} with {who} {when} and we talked about {thing} for hours.",
    "Do you remember what {who} said about {thing} when we were at {place}?",
    "{When} I have to finish {work}, but I would rather think about {thing}.",
    "What would you do if {who} asked you to help with {work} {when}?",
    "My plan for {when} is simple: {work} first, then {thing} at {place}.",
    "I am a bit worried about {work}; {who} thinks it will take another week.",
    "Could you write a short note to {who} about {thing}, please?",
    "We had {food} at {place} {when}, and {who} wants the recipe for it.",
    "How long does {food} need in the oven, and what goes well with it?",
    "There is a bug in {work}: it fails whenever {who} runs it at {place}.",
    "{When} {who} gave me a book on {thing}; the chapter about {place} is great.",
    "Is it true that {thing} became popular because of {place}?",
)
PHRASES = {
    "place": (
        *("the lake", "the old library", "my office", "the market in Lisbon", "grandmother's house"),
        *("the harbour", "a cafe near the station", "the botanical garden", "the mountains", "the museum"),
    ),
    "who": (
        "Anna",
        "my brother",
        "our neighbour",
        "the new colleague",
        "Tom",
        "my daughter",
        "Dr. Weiss",
        "Priya",
    ),
    "when": (
        "yesterday",
        "next Friday",
        "this morning",
        "on Sunday",
        "last summer",
        "after lunch",
        "in March",
    ),
    "thing": (
        *("pottery", "sailing", "the garden", "old maps", "jazz", "her dog", "the election", "astronomy"),
        *("learning Italian", "the marathon", "photography", "the rent", "his operation", "chess openings"),
    ),
    "work": (
        *("the tax forms", "the migration script", "my thesis", "the garden fence", "the quarterly report"),
        *("the parser", "the school play", "the bicycle's brakes", "the invoices", "the test suite"),
    ),
    "food": ("lentil soup", "an apple cake", "roast potatoes", "a lasagne", "fish curry", "fresh bread"),
}
Sizes = dict[str, tuple[int, int]]
Row = tuple[str, int, int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--said", nargs="+", choices=("chat", "long"), default=("chat", "long"))
    parser.add_argument("--embedder", choices=("onnx", "fake"), default="onnx")
    given = parser.parse_args()
    for said in given.said:
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
            served(Path(name), given.embedder, said) as url,
            httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
        ):
            measure(client, Path(name), given.turns, said)


@contextmanager
def served(folder: Path, embedder: str, said: str) -> Iterator[str]:
    """`agentflow serve` in a folder; yields its address."""
    folder.chmod(0o755)
    (folder / "agentflow.yaml").write_text(
        CONFIG.replace("KIND", embedder).replace("LENGTH", str(ANSWERS[said]))
    )
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


def measure(client: httpx.Client, folder: Path, turns: int, said: str) -> None:
    texts = chat(3 * turns + 1) if said == "chat" else drawn(3 * turns + 1)
    role = None if said == "chat" else "guide"
    converse(client, itertools.islice(texts, 1), role)
    with database(folder) as connection:
        settle(connection)
        before, whole = sizes(connection), grown(connection)
        for which in ("first", "second", "third"):
            letters = converse(client, itertools.islice(texts, turns), role)
            settle(connection)
            after, now = sizes(connection), grown(connection)
            print(f"{said}, {which} thread: {turns} turns, {letters / turns / 2:.0f} characters a message")
            told(before, after, now - whole)
            before, whole = after, now


def converse(client: httpx.Client, texts: Iterator[str], role: str | None) -> int:
    """One thread; returns how many characters were said."""
    thread, letters = None, 0
    for text in texts:
        answer = (
            client.post("/invoke", json={"input": text, "role": role, "thread_id": thread})
            .raise_for_status()
            .json()
        )
        thread, letters = answer["thread_id"], letters + len(text) + len(answer["output"])
    return letters


def chat(number: int) -> Iterator[str]:
    """Questions as people type them; the same for every run."""
    random = np.random.default_rng(7)
    for _ in range(number):
        chosen = {name: str(random.choice(several)) for name, several in PHRASES.items()}
        when = chosen["when"]
        yield str(random.choice(SENTENCES)).format(**chosen, When=when[0].upper() + when[1:])


def drawn(number: int) -> Iterator[str]:
    """Long questions of drawn words; the same for every run."""
    known = Tokenizer.from_file(str(find_weights(MINILM, print) / "tokenizer.json")).get_vocab()
    words = [word for word in sorted(known, key=known.__getitem__) if word.isascii() and word.isalpha()][26:]
    chances = 1 / (np.arange(len(words)) + 2.7)
    random = np.random.default_rng(7)
    for _ in range(number):
        yield " ".join(
            words[one] for one in random.choice(len(words), size=LENGTH, p=chances / chances.sum())
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
            raise SystemExit(
                f"Vectors are still owed after {SETTLED} s; the machine is busy: run it again later."
            )
        time.sleep(0.2)


def sizes(connection: psycopg.Connection) -> Sizes:
    connection.execute("vacuum analyze")
    return {name: (table, index) for name, table, index in connection.execute(SIZES)}


def grown(connection: psycopg.Connection) -> int:
    """Bytes of the whole database, Postgres' own tables included."""
    ((size,),) = connection.execute(DATABASE)
    return int(size)


def told(before: Sizes, after: Sizes, database: int) -> None:
    """What the tables have grown by."""
    print(f"{'kB':<34}{'table':>8}{'indexes':>9}{'in all':>8}")
    growth = [(name, *_growth(after[name], before.get(name, (0, 0)))) for name in after]
    rows = sorted((row for row in growth if row[3]), key=lambda row: -row[3])
    thread = [row for row in rows if row[0] not in VOCABULARY]
    words = [row for row in rows if row[0] in VOCABULARY]
    for row in (*thread, _sum("the thread", thread), *words, _sum("what is known of words", words)):
        line(*row)
    print(f"{'the whole database':<34}{'':>17}{database / 1000:>8.0f}\n")


def _growth(after: tuple[int, int], before: tuple[int, int]) -> tuple[int, int, int]:
    table, index = after[0] - before[0], after[1] - before[1]
    return table, index, table + index


def _sum(name: str, rows: Sequence[Row]) -> Row:
    return name, *(sum(row[column] for row in rows) for column in (1, 2, 3))


def line(name: str, *counts: int) -> None:
    figures = (f"{count / 1000:>{width}.0f}" for count, width in zip(counts, (8, 9, 8), strict=True))
    print(f"{name:<34}" + "".join(figures))


if __name__ == "__main__":
    main()
