"""Finished turns as they were: who spoke, when and in which thread. For replays; texts are not read."""

from dataclasses import dataclass

import psycopg

from agentflow.errors import SchemaMismatch
from agentflow.records.connections import lost_is_down
from agentflow.records.ownership import BACKGROUND

SPOKEN = """
select extract(epoch from started_at)::float8, role_name, thread_id::text
from run where status = 2 and adapter is not null and role_name is not null
order by started_at desc limit %(last)s
"""


@dataclass(frozen=True)
class Spoken:
    """A turn that an adapter answered; `at` is seconds since 1970."""

    at: float
    role: str
    thread: str


def spoken(dsn: str, *, last: int) -> list[Spoken]:
    """The last turns that adapters answered, of every tenant, oldest first. Blocks.

    Raises DatabaseDown, and SchemaMismatch for a database that agentflow has not set up yet.
    """
    options = f"-c role={BACKGROUND} -c search_path=agentflow,public -c default_transaction_read_only=on"
    try:
        with (
            lost_is_down(),
            psycopg.connect(dsn, autocommit=True, options=options, connect_timeout=5) as connection,
        ):
            rows = connection.execute(SPOKEN, {"last": last}).fetchall()
    except psycopg.errors.UndefinedTable as error:
        raise SchemaMismatch(
            "The database holds no turns yet: run agentflow migrate, or serve, first."
        ) from error
    return [Spoken(at, role, thread) for at, role, thread in reversed(rows)]
