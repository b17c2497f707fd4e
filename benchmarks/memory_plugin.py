"""The product's memory behind the methods that evaluation tools call: add, flush, search, close.

    OMP_NUM_THREADS=1 python locomo_eval.py --backend memory_plugin:Backend

`Memory(embed)` and `Backend(embed)` are one: embeddings are given, everything else is the product's own code on
an embedded Postgres that this process starts once. Every instance is a user of its own, so nothing is shared.
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

from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import NewMemory, Scope, Vectors
from agentflow.records.connections import Connections, open_connections
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
from agentflow.records.memories import Archive
from agentflow.records.migrate import migrate
from agentflow.records.outbox import Outbox
from agentflow.records.scopes import Scopes

Result = TypeVar("Result")
Embed = Callable[[list[str]], NDArray[np.float32]]


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

    def __init__(self, embed: Embed) -> None:
        server_ = server()
        self._embedder = Given(embed, dim=int(embed(["hello"]).shape[1]))
        scopes = Scopes(server_.connections, {}, self._embedder.id, self._embedder.dim)
        self._scope = Scope(0, "conversations", str(uuid_utils.uuid7()))
        self._archive = Archive(server_.connections, scopes)
        self._home = PostgresMemory(server_.connections, scopes)
        self._outbox = Outbox(server_.connections, self._embedder)
        self._sessions: dict[int, tuple[int, int]] = {}
        self._names: dict[int, str] = {}

    def add(self, turns: Sequence[Mapping[str, Any]]) -> None:
        for session in dict.fromkeys(turn["session"] for turn in turns):
            self._add(session, [turn for turn in turns if turn["session"] == session])

    def flush(self) -> None:
        while server().run(self._outbox.drain()) or server().run(self._outbox.learn()):
            pass

    def search(self, question: str, k: int) -> list[str]:
        vector = self._embedder.embedding([question])[0]
        found = server().run(self._home.search(self._scope, question, vector, k))
        return [self._names[one["id"]] for one in found]

    def _add(self, session: int, turns: Sequence[Mapping[str, Any]]) -> None:
        number, first = self._sessions.get(session) or (server().run(self._archive.session()), 0)
        sources = [uuid5(NAMESPACE_URL, f"{self._scope.user}/{turn['id']}") for turn in turns]
        memories = [
            NewMemory("conversations", place, turn["speaker"], said(turn), said_at=day(turn["date"]))
            for place, turn in enumerate(turns)
        ]
        pairs = list(zip(sources, memories, strict=True))
        ids = server().run(self._archive.add(self._scope, number, first, pairs))
        self._names |= {ids[source]: turn["id"] for source, turn in zip(sources, turns, strict=True)}
        self._sessions[session] = (number, first + len(turns))


Backend = Memory


def said(turn: Mapping[str, Any]) -> str:
    return turn["text"] + (f" [shares {turn['caption']}]" if turn["caption"] else "")


def day(date: str) -> datetime | None:
    match = re.search(r"on (\d+ \w+, \d+)", date)
    return datetime.strptime(match[1], "%d %B, %Y").replace(tzinfo=UTC) if match else None
