"""What a database says of itself to `agentflow doctor`; nothing is changed."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from agentflow.errors import DatabaseDown
from agentflow.records.job_tables import SCHEMA
from agentflow.records.jobs import GIVEN_UP
from agentflow.records.migrate import head
from agentflow.records.ownership import ROLES

FACTS = """
select current_setting('server_version'),
       (select extversion from pg_extension where extname = 'vector'),
       (select default_version from pg_available_extensions where name = 'vector'),
       current_setting('max_connections')::int, (select count(*) from pg_stat_activity),
       pg_size_pretty(pg_database_size(current_database())),
       array(select rolname from pg_roles where rolname = any(%(roles)s::text[]) and not rolbypassrls and not rolsuper),
       array(select rolname from pg_roles where rolname = any(%(roles)s::text[])
             and pg_has_role(current_user, oid, 'member')),
       array(select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname in ('agentflow', 'langgraph') and c.relkind in ('r', 'p') and not c.relforcerowsecurity
               and c.relname not in ('alembic_version', 'checkpoint_migrations', 'store_migrations'))
"""
CLOCK = "select extract(epoch from clock_timestamp())::float8"
REVISION = "select version_num from agentflow.alembic_version"


@dataclass(frozen=True)
class Condition:
    """How the database is. `at` None: it has never been migrated; `unguarded`: tables without forced row security;
    `roles_lacking`: those that are missing, too mighty, or that we may not take on; `given_up`: jobs that failed for
    good, by name and reason, with how many; `ahead`: seconds by which this machine's clock is ahead of the database's.
    """

    version: str
    vector: str | None
    vector_available: str | None
    at: str | None
    wanted: str
    connections: tuple[int, int]
    size: str
    roles_lacking: tuple[str, ...]
    unguarded: tuple[str, ...]
    given_up: tuple[tuple[str, str, int], ...] = ()
    ahead: float = 0.0


async def condition(dsn: str, clock: Callable[[], float] = time.time) -> Condition:
    """`clock` gives Unix seconds. Raises DatabaseDown."""
    try:
        async with await psycopg.AsyncConnection.connect(
            dsn, autocommit=True, connect_timeout=5
        ) as connection:
            row = await (await connection.execute(FACTS, {"roles": list(ROLES)})).fetchone()
            at = await _revision(connection)
            given_up = await _given_up(connection)
            told = await (await connection.execute(CLOCK)).fetchone()
            ahead = clock() - float(told[0] if told else clock())
    except psycopg.OperationalError as error:
        raise DatabaseDown(f"Postgres does not answer: {str(error).strip()}", field="postgres.url") from error
    version, vector, available, most, used, size, tame, ours, unguarded = row or (
        "?",
        None,
        None,
        0,
        0,
        "?",
        [],
        [],
        [],
    )
    lacking = tuple(role for role in ROLES if role not in tame or role not in ours)
    return Condition(
        version,
        vector,
        available,
        at,
        head(),
        (used, most),
        size,
        lacking,
        () if at is None else tuple(unguarded),
        given_up,
        ahead,
    )


async def _revision(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> str | None:
    try:
        row = await (await connection.execute(REVISION)).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
    return str(row[0]) if row else None


async def _given_up(
    connection: psycopg.AsyncConnection[tuple[object, ...]],
) -> tuple[tuple[str, str, int], ...]:
    try:
        async with connection.transaction():
            await connection.execute(f"set local search_path to {SCHEMA}".encode())
            rows = await (await connection.execute(GIVEN_UP, {"limit": 3})).fetchall()
    except psycopg.errors.UndefinedTable:
        return ()
    return tuple((str(name), str(reason), int(str(jobs))) for name, reason, jobs, _ in rows)
