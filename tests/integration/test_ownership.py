"""Row-level security: what the database itself refuses, whatever a statement forgets to ask."""

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from psycopg.errors import DivisionByZero, InsufficientPrivilege

from agentflow.errors import SchemaMismatch
from agentflow.protocols import NewMemory, Outcome, Owner, Request
from agentflow.records.checkpoints import TurnSaver
from agentflow.records.connections import Connections, open_connections
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.indexes import build
from agentflow.records.memory.scopes import Scopes
from agentflow.records.migrate import migrate
from agentflow.records.ownership import APP, BACKGROUND
from agentflow.settings import Collection

USAGE = {"prompt_tokens": 0, "completion_tokens": 0}
ANN, BOB, ELSEWHERE = Owner(1, "ann"), Owner(1, "bob"), Owner(2, "ann")
EVERYTHING = "select x::text from {} x"
ALONE = {"alembic_version", "checkpoint_migrations", "store_migrations"}  # which revision; no row of anybody
TABLES = """
select c.oid::regclass::text, c.relrowsecurity and c.relforcerowsecurity
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('agentflow', 'langgraph') and c.relkind in ('r', 'p') and not c.relname = any(%s)
"""


@pytest.fixture
async def connections(posted_database: str) -> AsyncIterator[Connections]:
    opened = await open_connections(posted_database, size=4)
    yield opened
    await opened.close()


async def remembered(connections: Connections, owner: Owner, shared: bool = False) -> str:
    """A turn of the owner with one memory; returns its run."""
    scopes = Scopes(connections, {"conversations": Collection()}, "test", 2)
    ledger = PostgresLedger(connections, scopes, worker="test")
    request = Request(text=f"{owner} speaks", tenant=owner.tenant, user=owner.user or "")
    lease = (await ledger.accept(request)).lease
    assert lease is not None
    item = NewMemory("conversations", 0, "user", f"{owner} remembers a dog")
    await ledger.finish(lease, Outcome("aha", {}, "coder", None, USAGE, 1, [item]))
    return lease.run_id


async def rows(connections: Connections, owner: Owner, query: str) -> list[tuple[object, ...]]:
    async with connections.use(owner) as connection:
        return await (await connection.execute(query.encode())).fetchall()


def test_every_table_has_forced_row_level_security(database: str) -> None:
    """A new table fails here by name until its revision calls records.ownership.protect."""
    with psycopg.connect(database) as connection:
        found = connection.execute(TABLES, (list(ALONE),)).fetchall()
    assert [table for table, forced in found if not forced] == []
    assert len(found) >= 16


async def test_a_partition_is_protected_too(connections: Connections) -> None:
    await remembered(connections, ANN)
    async with connections.use(ANN) as connection:
        with pytest.raises(InsufficientPrivilege):
            await connection.execute("select from memory_default")


@pytest.mark.parametrize(
    "table", ["thread", "run", "message", "scope", "memory", "posting", "outbox", "collection"]
)
async def test_a_statement_that_forgets_to_ask_sees_its_owner_s_rows_only(
    connections: Connections, table: str
) -> None:
    await remembered(connections, ANN)
    mine = await rows(connections, ANN, EVERYTHING.format(table))
    assert mine
    await remembered(connections, ELSEWHERE)
    assert await rows(connections, ANN, EVERYTHING.format(table)) == mine
    assert await rows(connections, Owner(3, "ann"), EVERYTHING.format(table)) == []


@pytest.mark.parametrize("table", ["thread", "run", "message", "scope", "memory", "posting"])
async def test_users_of_a_tenant_do_not_see_each_other(connections: Connections, table: str) -> None:
    for owner in (ANN, BOB):
        await remembered(connections, owner)
    counts = [
        len(await rows(connections, owner, f"select from {table}"))
        for owner in (ANN, BOB, Owner(1), Owner(1, "*"))
    ]
    assert counts[0] == counts[1] > 0
    assert counts[2:] == [counts[0] * 2, 0]


async def test_what_a_tenant_shares_all_its_users_see(connections: Connections) -> None:
    scopes = Scopes(connections, {"handbook": Collection()}, "test", 2)
    shared = await scopes.find(1, "handbook", None)
    for owner, seen in ((ANN, [(shared.scope_id,)]), (BOB, [(shared.scope_id,)]), (ELSEWHERE, [])):
        assert await rows(connections, owner, "select id from scope") == seen


async def test_nobody_writes_for_somebody_else(connections: Connections) -> None:
    await remembered(connections, ANN)
    for owner in (BOB, ELSEWHERE):
        for statement in ("update run set status = 0 returning id", "delete from message returning id"):
            assert await rows(connections, owner, statement) == []
    with pytest.raises(InsufficientPrivilege, match="row-level security"):
        await rows(
            connections, BOB, "insert into thread (id, tenant, user_ref) values (gen_random_uuid(), 1, 'ann')"
        )


async def test_a_returned_connection_belongs_to_nobody(connections: Connections) -> None:
    setting = "select current_setting('agentflow.tenant', true), current_setting('agentflow.user', true)"
    async with connections.use(ANN) as connection:
        assert await (await connection.execute(setting)).fetchone() == ("1", "=ann")
        with pytest.raises(DivisionByZero):
            await connection.execute("select 1/0")
    await remembered(connections, ANN)
    for _ in range(8):
        async with connections.data.connection() as connection:
            assert set(await (await connection.execute(setting)).fetchone() or ()) <= {None, ""}
            assert await (await connection.execute("select from thread")).fetchall() == []


async def test_in_a_transaction_the_owner_stays_after_a_part_of_it_was_taken_back(
    connections: Connections,
) -> None:
    await remembered(connections, ANN)
    async with connections.use(ANN) as connection, connection.transaction():
        with pytest.raises(DivisionByZero):
            async with connection.transaction():
                await connection.execute("select 1/0")
        assert len(await (await connection.execute("select from thread")).fetchall()) == 1


async def test_the_roles_own_nothing_and_cannot_pass_by(connections: Connections) -> None:
    attributes = (
        "select rolname, rolsuper or rolbypassrls or rolcreaterole from pg_roles where rolname = any(%s)"
    )
    owned = "select count(*) from pg_class where relowner = any(%s::regrole[])"
    async with connections.background() as connection:
        found = sorted(await (await connection.execute(attributes, ([APP, BACKGROUND],))).fetchall())
        assert found == [(APP, False), (BACKGROUND, False)]
        assert await (await connection.execute(owned, ([APP, BACKGROUND],))).fetchone() == (0,)
    for forbidden in (
        "alter table thread disable row level security",
        f"create policy open on thread to {APP} using (true)",
        f"drop policy {APP} on thread",
        "create table agentflow.mine ()",
    ):
        with pytest.raises(InsufficientPrivilege):
            await rows(connections, ANN, forbidden)


@pytest.fixture
def plain_owner(postgres: str) -> Iterator[str]:
    """DSN of an empty database whose owner is no superuser and may not create roles."""
    admin = psycopg.conninfo.make_conninfo(postgres, dbname="postgres")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("create role plain login")
        connection.execute("create database plain owner plain")
        yield psycopg.conninfo.make_conninfo(postgres, user="plain", dbname="plain")
        connection.execute("drop database plain with (force)")
        connection.execute("drop role plain")


async def test_an_owner_who_may_not_make_roles_is_told_what_to_ask_for(
    postgres: str, plain_owner: str
) -> None:
    admin = psycopg.conninfo.make_conninfo(postgres, dbname="plain")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("create extension vector")
        with pytest.raises(SchemaMismatch, match="Let a superuser run once: create role agentflow_app"):
            migrate(plain_owner)
        connection.execute(f"grant {APP}, {BACKGROUND} to plain with inherit false")
    migrate(plain_owner)
    connections = await open_connections(plain_owner, size=2)
    await remembered(connections, ANN)
    assert len(await rows(connections, ANN, "select from thread")) == 1
    async with connections.maintenance() as owner:
        assert await (await owner.execute("select from thread")).fetchall() == []
    assert await build(connections, 1, 2)
    assert len(await rows(connections, ANN, "select from memory")) == 1
    await connections.close()


async def test_background_work_sees_every_tenant(connections: Connections) -> None:
    for owner in (ANN, ELSEWHERE):
        await remembered(connections, owner)
    async with connections.background() as connection:
        found = await (await connection.execute("select distinct tenant from run order by 1")).fetchall()
    assert found == [(1,), (2,)]


async def test_checkpoints_of_others_are_empty(connections: Connections) -> None:
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    mine = TurnSaver(connections, ANN)
    await mine.aput(config, empty_checkpoint(), {}, {})
    assert await mine.aget_tuple(config) is not None
    for owner in (BOB, ELSEWHERE):
        assert await TurnSaver(connections, owner).aget_tuple(config) is None
    assert await TurnSaver(connections, Owner(1)).aget_tuple(config) is not None
