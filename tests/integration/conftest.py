"""Real tables: connections to them, and a desk with everything that tests of memories need."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass

import pytest

from agentflow.errors import DatabaseDown
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import NewMemory, Outcome, Request, Scope
from agentflow.records.connections import Connections, open_connections
from agentflow.records.details import unpacked
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.forget import Forgetting
from agentflow.records.memory.library import Library
from agentflow.records.memory.outbox import Outbox
from agentflow.records.memory.portable import Portable
from agentflow.records.memory.rights import Filter, Owner, Rights
from agentflow.records.memory.scopes import Scopes
from agentflow.retrieval.pieces import pieces
from agentflow.settings import Collection

USAGE = {"prompt_tokens": 0, "completion_tokens": 0}
ANN = Owner(0, "ann")
TABLES = """
select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('agentflow', 'langgraph') and c.relkind = 'r' order by 1
"""
COUNTS = """
select (select count(*) from memory where bow is not null), (select sum(n_docs) from scope),
       (select sum(sum_len) from scope), (select coalesce(sum(doc_len), 0) from memory where bow is not null),
       (select coalesce(sum(cardinality(entries)), 0) from posting), (select coalesce(sum(df), 0) from posting),
       (select coalesce(sum(octet_length(bow)) / 6, 0) from memory),
       (select count(*) from posting where df = 0 and block = 0 or entries = '{}')
"""


@dataclass
class Desk:
    """Everything that a test of the rights needs."""

    connections: Connections
    scopes: Scopes
    ledger: PostgresLedger
    rights: Rights
    forgetting: Forgetting
    outbox: Outbox
    library: Library
    portable: Portable

    @property
    def home(self) -> PostgresMemory:
        return PostgresMemory(self.connections, self.scopes)

    async def says(self, text: str, *, user: str = "ann", thread: str | None = None, result=None) -> str:
        """A turn that says it and is answered with it; returns the run."""
        accepted = await self.ledger.accept(Request(text=text, user=user, thread_id=thread))
        lease = accepted.lease
        assert lease is not None
        said = [("user", piece) for piece in pieces(text)] + [("assistant", f"You said: {text}"[:200])]
        items = [
            NewMemory("conversations", place, speaker, content, piece=place)
            for place, (speaker, content) in enumerate(said)
        ]
        outcome = {"output": f"You said: {text}"[:200], "memories": [], **(result or {})}
        await self.ledger.finish(lease, Outcome(outcome["output"], outcome, "coder", None, USAGE, 1, items))
        return lease.run_id

    async def found(self, text: str, *, user: str = "ann", vector=None) -> list[str]:
        rows = await self.home.search(Scope(0, "conversations", user), text, vector, 9)
        return [one["content"] for one in rows]

    async def ids(self, owner: Owner = ANN) -> list[int]:
        return sorted(one["id"] for one in await self.rights.listed(owner, Filter()))

    async def rows(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        async with self.connections.maintenance() as connection:
            return list(await (await connection.execute(statement.encode(), values)).fetchall())

    async def holding(self, text: str) -> list[str]:
        """Every table that holds the text, as it stands, as bytes or packed."""
        hexed = text.encode().hex()
        holds = "select count(*) from {} t where t::text ilike '%%' || %s || '%%' or t::text ilike '%%' || %s || '%%'"
        tables = [name for (name,) in await self.rows(TABLES)]
        found = {name for name in tables if (await self.rows(holds.format(name), text, hexed))[0][0]}
        details = [unpacked(one) for (one,) in await self.rows("select details from run")]
        return sorted(found | ({"agentflow.run"} if text in str(details) else set()))

    async def counts_are_exact(self) -> bool:
        items, documents, length, lengths, postings, frequencies, terms, empty = (await self.rows(COUNTS))[0]
        return (documents, length, postings, frequencies, empty) == (items, lengths, terms, terms, 0)

    async def broken_off(self, work: Coroutine[None, None, object]) -> None:
        """Postgres ends the connection while the work waits for a lock in the middle of its transaction."""
        kill = (
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where wait_event_type = 'Lock' and datname = current_database()"
        )
        async with self.connections.maintenance() as other, other.transaction():
            await other.execute("set local role agentflow_background")
            await other.execute("select from scope for update")
            await other.execute("reset role")
            task = asyncio.create_task(work)
            async with asyncio.timeout(60):
                while not (await (await other.execute(kill)).fetchall()):  # noqa: ASYNC110 - Postgres is asked
                    await asyncio.sleep(0.02)
            with pytest.raises(DatabaseDown):
                await task


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Connections]:
    opened = await open_connections(database, size=4)
    yield opened
    await opened.close()


@pytest.fixture
async def desk(posted_database: str) -> AsyncIterator[Desk]:
    connections = await open_connections(posted_database, size=6)
    scopes = Scopes(connections, {"conversations": Collection()}, FakeEmbedder.id, FakeEmbedder.dim)
    yield Desk(
        connections,
        scopes,
        PostgresLedger(connections, scopes, worker="test"),
        Rights(connections, scopes),
        Forgetting(connections),
        Outbox(connections, FakeEmbedder()),
        Library(connections, scopes),
        Portable(connections, scopes),
    )
    await connections.close()
