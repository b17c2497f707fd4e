"""The product behind the methods that evaluation tools call; embeddings are given, so that only the rest is measured.

Routing: `Router(encoder)` with fit, predict and one; `Router(None)` and `WithEmbedder()` embed for themselves, exactly
as the graph does. The RAM tier: `RamPolicy`. Memory: `Memory(embed)` with add, flush, search and close, on an embedded
Postgres that this process starts once; every instance is a user of its own. `Memory(embed, backend="faiss")` and
"qdrant" search the vectors in those places, in RAM; FaissMemory and QdrantMemory name them to tools that pass nothing
but `embed`.

    OMP_NUM_THREADS=1 PYTHONPATH=. python locomo_eval.py --backend plugins:Memory
"""

import asyncio
import atexit
import re
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import uuid_utils
from numpy.typing import NDArray

from agentflow.embedders.onnx import MINILM, open_encoder
from agentflow.embedders.weights import find_weights
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import NewMemory, Scope, Vectors
from agentflow.records.connections import Connections, open_connections
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
from agentflow.records.memory.outbox import Outbox
from agentflow.records.memory.places import Places
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.vectors import VectorRecord
from agentflow.records.memory.writing import Archive
from agentflow.records.migrate import migrate
from agentflow.residency.worth import MEGABYTE, AgedWorth
from agentflow.routing.classifier import NOTHING, Classifier, Example, fit
from agentflow.settings import Collection, environment
from agentflow.settings.routing import RouterSettings
from agentflow.wiring.homes import vector_homes

Result = TypeVar("Result")
Embed = Callable[[list[str]], NDArray[np.float32]]
Encoder = Callable[[Sequence[str]], NDArray[np.float32]]


class Router:
    """Roles are the labels. A text with two labels keeps the first in order of the alphabet."""

    def __init__(self, encoder: Encoder | None) -> None:
        self._encoder = encoder or own_embedder()
        self._settings = RouterSettings()
        self._fitted: Classifier

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        role_of: dict[str, str] = {}
        for role, text in sorted(zip(map(str, labels), texts, strict=True)):
            role_of.setdefault(text, role)
        known = list(role_of)
        vectors = dict(zip(known, self._encoder(known), strict=True))
        self._fitted = fit(
            [Example(role, "", text) for text, role in role_of.items()], vectors, self._settings
        )

    def predict(self, texts: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
        """The best role of each text, and how much it is in scope (higher is more)."""
        looked_at = [text[: self._settings.text_limit] for text in texts]
        scored = self._fitted.score(self._encoder(looked_at), looked_at)
        best = scored.chances[:, int(NOTHING in self._fitted.roles) :].argmax(axis=1)
        names = [role for role in self._fitted.roles if role != NOTHING]
        return [names[place] for place in best], scored.scope

    def one(self, text: str) -> str:
        """One decision, as a turn makes it."""
        return self.predict([text])[0][0]


class WithEmbedder(Router):
    """The whole path of a message, embedding included."""

    def __init__(self) -> None:
        super().__init__(None)


def own_embedder() -> Encoder:
    """The embedder that agentflow.yaml gets by default: MiniLM in ONNX Runtime, int8."""
    cache = environment.read().cache
    return open_encoder(find_weights(MINILM, print), "int8", cache).encode


class RamPolicy:
    """The product's RAM policy as simulators call it: a tier capped in entries.

    `cost[a]` are the seconds to bring adapter `a` back, `size[a]` its size in units of 32 MB. `victim`
    raises ValueError when nothing may leave.
    """

    in_bytes = False

    def __init__(
        self, cap: int, cost: Sequence[float], size: Sequence[float] | None = None, nextuse: object = None
    ) -> None:
        del cap, nextuse  # the policy counts what is resident, and does not know the future
        self._worth = AgedWorth(in_bytes=self.in_bytes)
        self._cost, self._size = cost, size

    def access(self, a: int, t: float) -> None:
        self._worth.access(str(a), seconds=self._cost[a], octets=self._octets(a), now=t)

    def insert(self, a: int, t: float) -> None:
        self._worth.insert(str(a), seconds=self._cost[a], octets=self._octets(a), now=t)

    def evict(self, a: int) -> None:
        self._worth.evict(str(a))

    def admit(self, a: int, victim: int, t: float) -> bool:
        del a, victim, t
        return True

    def victim(self, ok: Callable[[int], bool], t: float) -> int:
        del t
        found = self._worth.victim(lambda name: ok(int(name)))
        if found is None:
            raise ValueError("nothing may leave")
        return int(found)

    def _octets(self, a: int) -> float:
        return (1.0 if self._size is None else float(self._size[a])) * 32 * MEGABYTE


class RamPolicyInBytes(RamPolicy):
    """The same for a tier capped in bytes."""

    in_bytes = True


class Server:
    """One embedded Postgres and one event loop for the process."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="agentflow-", ignore_cleanup_errors=True)
        )
        server = EmbeddedPostgres(EmbeddedOptions(Path(folder) / "postgres", sync=False))
        dsn = server.start()
        self._stack.callback(server.stop)
        migrate(dsn)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.connections: Connections = self.run(open_connections(dsn, size=4))
        atexit.register(self.close)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self.run(self.connections.close())
        self._stack.close()


@cache
def server() -> Server:
    return Server()


@dataclass(frozen=True)
class Given:
    """The evaluation's embeddings as an embedder."""

    embedding: Embed
    dim: int
    id: str = "given"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return self.embedding(list(texts))

    async def close(self) -> None:
        """Nothing is held."""


class Memory:
    """A fresh scope. Turns are dictionaries: id, session, date ("1:56 pm on 8 May, 2023"), speaker, text, caption."""

    def __init__(self, embed: Embed, backend: str = "postgres") -> None:
        server_ = server()
        settings = {backend: Collection.model_validate({"backend": backend})}
        self._collection = backend
        self._embedder = Given(embed, dim=int(embed(["hello"]).shape[1]))
        scopes = Scopes(server_.connections, settings, self._embedder.id, self._embedder.dim)
        self._scope = Scope(0, backend, str(uuid_utils.uuid7()))
        self._archive = Archive(server_.connections, scopes)
        homes = vector_homes(settings, Path(), self._embedder.dim)
        record = VectorRecord(server_.connections, self._scope.user or "")
        self._places = Places(record, homes, {backend: 60.0})
        self._home = PostgresMemory(server_.connections, scopes, self._places)
        self._outbox = Outbox(server_.connections, self._embedder)
        self._sessions: dict[int, tuple[int, int]] = {}
        self._names: dict[int, str] = {}

    def add(self, turns: Sequence[Mapping[str, Any]]) -> None:
        for session in dict.fromkeys(turn["session"] for turn in turns):
            self._add(session, [turn for turn in turns if turn["session"] == session])

    def flush(self) -> None:
        while server().run(self._outbox.drain()) or server().run(self._outbox.learn()):
            pass
        server().run(self._places.settle())

    def search(self, question: str, k: int) -> list[str]:
        vector = self._embedder.embedding([question])[0]
        found = server().run(self._home.search(self._scope, question, vector, k))
        return [self._names[one["id"]] for one in found]

    def _add(self, session: int, turns: Sequence[Mapping[str, Any]]) -> None:
        number, first = self._sessions.get(session) or (server().run(self._archive.session()), 0)
        sources = [uuid5(NAMESPACE_URL, f"{self._scope.user}/{turn['id']}") for turn in turns]
        memories = [
            NewMemory(self._collection, place, turn["speaker"], said(turn), said_at=day(turn["date"]))
            for place, turn in enumerate(turns)
        ]
        pairs = list(zip(sources, memories, strict=True))
        ids = server().run(self._archive.add(self._scope, number, first, pairs))
        self._names |= {ids[source]: turn["id"] for source, turn in zip(sources, turns, strict=True)}
        self._sessions[session] = (number, first + len(turns))

    def close(self) -> None:
        server().run(self._places.close())


class FaissMemory(Memory):
    """Vectors in FAISS."""

    def __init__(self, embed: Embed) -> None:
        super().__init__(embed, "faiss")


class QdrantMemory(Memory):
    """Vectors in Qdrant."""

    def __init__(self, embed: Embed) -> None:
        super().__init__(embed, "qdrant")


def said(turn: Mapping[str, Any]) -> str:
    return turn["text"] + (f" [shares {turn['caption']}]" if turn["caption"] else "")


def day(date: str) -> datetime | None:
    match = re.search(r"on (\d+ \w+, \d+)", date)
    return datetime.strptime(match[1], "%d %B, %Y").replace(tzinfo=UTC) if match else None
