"""What memory costs: recall beside a plain pgvector top-k in the same run, and what write-back adds to a turn's end.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--items 100000] [--queries 300] [--peers PYTHON] [--peer-items 1000]

One collection of one user on an embedded Postgres with fsync; texts of about 18 words whose frequencies follow
Zipf's law, vectors in clusters. The plain query reads the ten nearest texts from the same partition by the same
index, through the same pool. Queries are paired: each is asked both ways, in turn.

Peers are given the same texts and vectors, at a size they bear: LangGraph's Postgres store on the same server, and
mem0 with the interpreter that --peers names (requirements/peers.txt).
"""

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import psycopg
from langgraph.store.postgres.aio import AsyncPostgresStore, PostgresIndexConfig
from numpy.typing import NDArray
from pgvector import HalfVector

from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import NewMemory, Outcome, Request, Scope
from agentflow.records.connections import Connections, open_connections
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.indexes import build
from agentflow.records.memory.postings import settle
from agentflow.records.memory.scopes import Place, Scopes
from agentflow.records.memory.vocabulary import READ
from agentflow.records.memory.writing import Archive
from agentflow.records.migrate import migrate
from agentflow.retrieval.terms import term

DIM, WORDS, SESSION = 384, 20_000, 20
MINE = Scope(0, "conversations", "default")
PLAIN = """
select id, speaker, said_at, content, thread_id from memory
where collection_id = {collection} and scope_id = %(scope)s and vector is not null
order by vector::halfvec({dim}) <=> %(vector)s::halfvec({dim}) limit 10
"""
RELATE = """
insert into word (collection_id, term, word, nearest)
select %(collection)s, term, 'w' || term, array_agg(entry order by entry desc)
from unnest(%(terms)s::int[], %(entries)s::bigint[]) u(term, entry) group by term
on conflict (collection_id, term) do update set nearest = excluded.nearest
"""


class Texts:
    """Sentences and vectors that look like conversations to an index; the same for every run."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(7)
        ranks = np.arange(1, WORDS + 1)
        self._chances = 1 / (ranks + 2.7) ** 1.05
        self._chances /= self._chances.sum()
        self._centres = self._random.normal(size=(200, DIM)).astype(np.float32)

    def sentences(self, number: int, words: int = 18) -> list[str]:
        drawn = self._random.choice(WORDS, size=(number, words), p=self._chances)
        return [" ".join(f"w{word}" for word in row) for row in drawn]

    def vectors(self, number: int) -> NDArray[np.float32]:
        centres = self._centres[self._random.integers(len(self._centres), size=number)]
        found = centres + 0.8 * self._random.normal(size=(number, DIM)).astype(np.float32)
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@dataclass
class World:
    """A database with a collection, and what searches it."""

    connections: Connections
    scopes: Scopes
    texts: Texts


async def load(world: World, items: int) -> float:
    """Fill the collection; returns items per second."""
    archive = Archive(world.connections, world.scopes)
    began = time.perf_counter()
    for start in range(0, items, 1000):
        sentences, vectors = world.texts.sentences(1000), world.texts.vectors(1000)
        session = await archive.session()
        written = [
            (UUID(int=start + place), NewMemory("conversations", place, "user", sentence, vectors[place]))
            for place, sentence in enumerate(sentences)
        ]
        await archive.add(MINE, session, 0, written)
        while await settle(world.connections):
            pass
    return items / (time.perf_counter() - began)


async def relate(world: World, place: Place) -> None:
    """Eight words near each word, as the vocabulary would learn them from real texts."""
    random = np.random.default_rng(8)
    numbers = np.array([term(f"w{word}") for word in range(WORDS)])
    near = numbers[random.integers(WORDS, size=(WORDS, READ))]
    nearness = np.rint(random.uniform(0, 0.6, size=near.shape) * 65535).astype(np.int64)
    parameters = {
        "collection": place.collection_id,
        "terms": np.repeat(numbers, READ).tolist(),
        "entries": ((nearness << 32) + near + 2**31).ravel().tolist(),
    }
    async with world.connections.background() as connection:
        await connection.execute(RELATE, parameters)


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


async def recall(world: World, queries: int) -> tuple[list[float], list[float]]:
    """Milliseconds of whole recalls, and of plain queries."""
    home = PostgresMemory(world.connections, world.scopes)
    place = await world.scopes.find(MINE.tenant, MINE.collection, MINE.user)
    asked = list(zip(world.texts.sentences(queries, 6), world.texts.vectors(queries), strict=True))
    ours, plain = [], []
    for text, vector in asked:
        plain.append(await timed(lambda v=vector: nearest(world, place, v)))
        ours.append(await timed(lambda t=text, v=vector: home.search(MINE, t, v, 10)))
    return ours[20:], plain[20:]


async def nearest(world: World, place: Place, vector: NDArray[np.float32]) -> list[tuple[object, ...]]:
    statement = PLAIN.format(collection=place.collection_id, dim=DIM)
    parameters = {"scope": place.scope_id, "vector": HalfVector(vector)}
    async with world.connections.use(MINE.owner) as connection, connection.cursor(binary=True) as cursor:
        await cursor.execute(statement.encode(), parameters)
        return list(await cursor.fetchall())


async def write_back(world: World, turns: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a turn's end with its two memories, and without them."""
    ledger = PostgresLedger(world.connections, world.scopes, worker="bench")
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    remembering, silent = [], []
    for number in range(turns):
        said = world.texts.sentences(2, 40)
        memories = [
            NewMemory("conversations", 0, "user", said[0]),
            NewMemory("conversations", 1, "assistant", said[1]),
        ]
        for found, items in (
            ((remembering, memories), (silent, [])) if number % 2 else ((silent, []), (remembering, memories))
        ):
            lease = (await ledger.accept(Request(text=said[0]))).lease
            outcome = Outcome(said[1], {}, None, None, usage, 1, items)
            found.append(await timed(lambda held=lease, ended=outcome: ledger.finish(held, ended)))
    return remembering, silent


async def beside(world: World, dsn: str, items: int, python: str | None) -> None:
    """What adding and searching cost us and peers, one item at a time."""
    texts, questions = world.texts.sentences(items), world.texts.sentences(50, 6)
    vectors, asked = world.texts.vectors(items), world.texts.vectors(50)
    print(f"beside peers, {items} items, one at a time (embedding excluded)")
    ours = await added_and_searched(world, texts, vectors, list(zip(questions, asked, strict=True)))
    known = dict(zip(texts + questions, [*vectors.tolist(), *asked.tolist()], strict=True))
    told("agentflow", *ours, ours)
    told("LangGraph store", *await langgraph_store(dsn, texts, questions, known), ours)
    if python is None or shutil.which(python) is None:
        print("mem0 is left out: name an interpreter that has requirements/peers.txt with --peers")
        return
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file.name, texts=texts, vectors=vectors, questions=questions, asked=asked)
        command = [python, str(Path(__file__).with_name("memory_peers.py")), file.name]
        ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    if ended.returncode:
        print(f"mem0 is left out: {ended.stderr.strip().splitlines()[-1]}")
        return
    found = json.loads(ended.stdout.splitlines()[-1])
    told("mem0 (infer=False, Qdrant)", found["add"], found["search"], ours)


async def added_and_searched(
    world: World, texts: list[str], vectors: NDArray[np.float32], asked: list[tuple[str, NDArray[np.float32]]]
) -> tuple[float, float]:
    archive, home = Archive(world.connections, world.scopes), PostgresMemory(world.connections, world.scopes)
    scope, session = Scope(0, "conversations", "peer"), await archive.session()
    adds = []
    for place, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        one = [(uuid4(), NewMemory(scope.collection, place, "user", text, vector))]
        adds.append(await timed(lambda n=place, pair=one: archive.add(scope, session, n, pair)))
    searches = [await timed(lambda t=text, v=vector: home.search(scope, t, v, 10)) for text, vector in asked]
    return statistics.median(adds), statistics.median(searches)


async def langgraph_store(
    dsn: str, texts: list[str], questions: list[str], known: dict[str, list[float]]
) -> tuple[float, float]:
    def given(asked: Sequence[str]) -> list[list[float]]:
        return [known[text] for text in asked]

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create database peer")
    where = psycopg.conninfo.make_conninfo(dsn, dbname="peer")
    index: PostgresIndexConfig = {"dims": DIM, "embed": given, "fields": ["text"]}
    async with AsyncPostgresStore.from_conn_string(where, index=index) as store:
        await store.setup()
        adds = [
            await timed(lambda n=place, t=text: store.aput(("me",), str(n), {"text": t}))
            for place, text in enumerate(texts)
        ]
        searches = [
            await timed(lambda t=text: store.asearch(("me",), query=t, limit=10)) for text in questions
        ]
    return statistics.median(adds), statistics.median(searches)


def told(name: str, add: float, search: float, ours: tuple[float, float]) -> None:
    ratios = f"add {add / ours[0]:5.2f} x   search {search / ours[1]:5.2f} x"
    print(f"{name:<30} add {add:8.2f} ms   search {search:8.2f} ms   {ratios}")


async def measure(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="agentflow-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedPostgres(EmbeddedOptions(Path(folder) / "postgres"))
        dsn = server.start()
        migrate(dsn)
        connections = await open_connections(dsn, size=4)
        try:
            world = World(connections, Scopes(connections, {}, "bench", DIM), Texts())
            await report(world, arguments.items, arguments.queries)
            if arguments.peer_items:
                await beside(world, dsn, arguments.peer_items, arguments.peers)
        finally:
            await connections.close()
            server.stop()


async def report(world: World, items: int, queries: int) -> None:
    rate = await load(world, items)
    print(f"{items} items in one collection, loaded with words and vectors at {rate:.0f} items/s")
    place = await world.scopes.find(MINE.tenant, MINE.collection, MINE.user)
    if items >= 20_000:
        built = await timed(lambda: build(world.connections, place.collection_id, DIM, items=items))
        print(f"vector index (HNSW) built in {built / 1000:.1f} s")
        world.scopes.known.clear()
    await relate(world, place)
    async with world.connections.maintenance() as connection:
        await connection.execute("vacuum analyze")
    ours, plain = await recall(world, queries + 20)
    show("plain pgvector top-10", plain, plain)
    show("recall", ours, plain)
    with_words, without = await write_back(world, 200)
    show("turn's end without memories", without, without)
    show("turn's end with two memories", with_words, without)
    print(f"write-back adds {statistics.median(with_words) - statistics.median(without):.2f} ms")


def show(name: str, found: list[float], against: list[float]) -> None:
    median, p95 = statistics.median(found), sorted(found)[int(len(found) * 0.95)]
    ratio = median / statistics.median(against)
    print(f"{name:<30} median {median:6.2f} ms   p95 {p95:6.2f} ms   {ratio:4.2f} x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--peers", help="an interpreter that has requirements/peers.txt")
    parser.add_argument("--peer-items", type=int, default=1000, help="0: no peers")
    asyncio.run(measure(parser.parse_args()))
