"""The schema: from empty, up and down, and equal to agentflow.tables."""

import concurrent.futures
from uuid import UUID

import numpy as np
import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from psycopg.types.json import Jsonb
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from agentflow.errors import SchemaMismatch
from agentflow.protocols import NewMemory, Scope
from agentflow.records import migrate
from agentflow.records.connections import open_connections
from agentflow.records.memory.scopes import Scopes
from agentflow.records.memory.writing import Archive

FINISHED = (
    "insert into thread (id, user_ref) values (%(thread)s, 'ann')",
    """
    insert into run (id, user_ref, thread_id, seq, status, fingerprint, result, ended_at)
    values (%(run)s, 'ann', %(thread)s, 1, 2, '', %(result)s, now())
    """,
    """
    insert into message (id, user_ref, thread_id, seq, run_id, role, content)
    values (%(run)s, 'ann', %(thread)s, 2, %(run)s, 3, 'Hello Ann.')
    """,
)


def run(dsn: str, task, *arguments: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool)
    with engine.connect() as connection:
        config = migrate.scripts()
        config.attributes["connection"] = connection
        task(config, *arguments)
        connection.commit()
    engine.dispose()


def test_revisions_and_tables_agree(database: str) -> None:
    run(database, command.check)


def test_the_newest_revision_is_told_without_alembic() -> None:
    assert ScriptDirectory.from_config(migrate.scripts()).get_heads() == [migrate.head()]


def test_down_to_nothing_and_up_again(database: str) -> None:
    run(database, command.downgrade, "base")
    with psycopg.connect(database) as connection:
        left = connection.execute("select tablename from pg_tables where schemaname = 'agentflow'").fetchall()
    assert left == [("alembic_version",)]
    assert migrate.migrate(database) == migrate.head()


def test_stored_results_are_packed_and_told_again(database: str) -> None:
    ids = {"thread": "01900000-0000-7000-8000-000000000001", "run": "01900000-0000-7000-8000-000000000002"}
    result = {"run_id": ids["run"], "thread_id": ids["thread"], "output": "Hello Ann.", "finish": "stop"}
    run(database, command.downgrade, "0015")
    with psycopg.connect(database, autocommit=True, options="-c search_path=agentflow") as connection:
        given = {**ids, "result": Jsonb({**result, "memories": []})}
        for statement in FINISHED:
            connection.execute(statement, given)
        run(database, command.upgrade, "0016")
        stored = connection.execute("select octet_length(details), recalled from run").fetchall()
        run(database, command.downgrade, "0015")
        again = connection.execute("select result from run").fetchall()
    assert stored[0][0] < 60
    assert (stored[0][1], again) == (None, [({**result, "memories": []},)])


def test_many_processes_migrate_once(database: str) -> None:
    run(database, command.downgrade, "base")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(migrate.migrate, [database] * 4)) == {migrate.head()}


def test_a_database_of_a_newer_version_is_left_alone(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("update agentflow.alembic_version set version_num = '9999'")
    with pytest.raises(SchemaMismatch, match="revision 9999, which this version of agentflow does not know"):
        migrate.migrate(database)


def test_every_table_knows_its_tenant(database: str) -> None:
    query = """
        select table_name from information_schema.tables t where table_schema = 'agentflow'
          and table_name not in ('alembic_version', 'spending') and not exists (
            select from information_schema.columns c where c.table_schema = 'agentflow'
              and c.table_name = t.table_name and c.column_name in ('tenant', 'scope_id'))
    """
    with psycopg.connect(database) as connection:
        assert connection.execute(query).fetchall() == []


POSTINGS = """
select p.term, entry, case block when 0 then df end from agentflow.posting p cross join unnest(entries) entry
order by 1, 2
"""
ROWS = """
select p.term, (item_id << 24) + (tf::bigint << 16) + dl, df from agentflow.posting p
join agentflow.term_stat using (scope_id, term) order by 1, 2
"""


async def test_postings_are_converted_there_and_back(posted_database: str) -> None:
    connections = await open_connections(posted_database, size=2)
    scopes = Scopes(connections, {}, "test", 2)
    items = [(UUID(int=n), NewMemory("conversations", n, "Ann", f"dog {n % 9} dog")) for n in range(300)]
    await Archive(connections, scopes).add(Scope(0, "conversations", "ann"), 1, 0, items)
    await connections.close()
    with psycopg.connect(posted_database, autocommit=True) as connection:
        before = connection.execute(POSTINGS).fetchall()
        run(posted_database, command.downgrade, "0016")
        assert connection.execute(ROWS).fetchall() == before
        connection.execute("update agentflow.scope set n_docs = 501")
        run(posted_database, command.upgrade, "head")
        after = connection.execute(POSTINGS).fetchall()
        blocks = connection.execute(
            "select max(cardinality(entries)), max(block), max(df) from agentflow.posting"
        )
        assert blocks.fetchall() == [(128, 2, 300)]
    assert [row[:2] for row in after] == [row[:2] for row in before]


async def test_vectors_become_codes_and_come_back_nearly(database: str) -> None:
    vectors = np.eye(3, 384, dtype=np.float32)
    items = [
        (UUID(int=n), NewMemory("conversations", n, "Ann", f"dog {n}", vector))
        for n, vector in enumerate([*vectors, None])
    ]
    connections = await open_connections(database, size=2)
    archive = Archive(connections, Scopes(connections, {}, "test", 384))
    await archive.add(Scope(0, "conversations", "ann"), 1, 0, items)
    await connections.close()
    stored = "select octet_length(embedding), vector from agentflow.memory order by id"
    with psycopg.connect(database, autocommit=True) as connection:
        run(database, command.downgrade, "0023")
        nearness = "select embedding <=> %s::halfvec < 0.001 from agentflow.memory order by id"
        assert [
            [row[0] for row in connection.execute(nearness, [str(vector.tolist())])] for vector in vectors
        ] == [[True, False, False, None], [False, True, False, None], [False, False, True, None]]
        run(database, command.upgrade, "0024")
        assert connection.execute(stored).fetchall() == [(288, None)] * 3 + [(None, None)]
