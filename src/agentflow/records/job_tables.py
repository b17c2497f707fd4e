"""The tables of the job library, in a schema of their own."""

from importlib import resources
from typing import Any

import procrastinate
import psycopg

SCHEMA = "jobs"


def prepare(connection: psycopg.Connection[Any]) -> None:
    """Bring them to the version that is installed."""
    row = connection.execute(
        "select obj_description(oid, 'pg_namespace') as at from pg_namespace where nspname = %s", (SCHEMA,)
    ).fetchone()
    at = None if row is None else (row["at"] if isinstance(row, dict) else row[0])
    if at == procrastinate.__version__:
        return
    with connection.transaction():
        connection.execute(f"create schema if not exists {SCHEMA}".encode())
        connection.execute(f"set local search_path to {SCHEMA}".encode())
        for script in _scripts(at):
            connection.execute(script.encode(), prepare=False)
        connection.execute(f"comment on schema {SCHEMA} is '{procrastinate.__version__}'".encode())


def _scripts(at: str | None) -> list[str]:
    sql = resources.files("procrastinate.sql")
    if at is None:
        return [(sql / "schema.sql").read_text(encoding="utf-8")]
    known = _version(at)
    files = sorted((one for one in (sql / "migrations").iterdir() if one.name.endswith(".sql")), key=_name)
    return [one.read_text(encoding="utf-8") for one in files if _version(one.name.split("_")[0]) > known]


def _name(file: Any) -> str:
    return str(file.name)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
