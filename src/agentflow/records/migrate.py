"""Bring a database to this version's schema, once, however many processes start at the same time."""

import importlib.util
from importlib import resources
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from agentflow.errors import DatabaseDown, SchemaMismatch
from agentflow.tables import SCHEMA

LOCK = 0x61666C77  # "aflw": one key for every process that migrates
MINIMUM_VECTOR = (0, 8)


def migrate(dsn: str) -> str:
    """Upgrade to the newest revision and return its id.

    Raises DatabaseDown, or SchemaMismatch if the database is newer than this version of agentflow
    or its pgvector is missing or too old.
    """
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as lock:
            lock.execute("select pg_advisory_lock(%s)", (LOCK,))
            _prepare(lock)
            _upgrade(dsn)
            _prepare_checkpoints(dsn)
    except psycopg.OperationalError as error:
        raise DatabaseDown(f"Postgres does not answer: {str(error).strip()}", field="postgres.url") from error
    return head()


def head() -> str:
    """The newest revision this version of agentflow knows."""
    return ScriptDirectory.from_config(scripts()).get_current_head() or ""


def current(connection: psycopg.Connection[tuple[object, ...]]) -> str | None:
    """The revision a database is at, or None before the first migration."""
    known = connection.execute("select to_regclass('agentflow.alembic_version')").fetchone()
    if not known or known[0] is None:
        return None
    row = connection.execute("select version_num from agentflow.alembic_version").fetchone()
    return str(row[0]) if row else None


def _prepare(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    try:
        connection.execute("create extension if not exists vector")
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        raise SchemaMismatch(
            "This Postgres has no pgvector. Install pgvector 0.8 or newer, or leave postgres.url empty "
            "for the embedded server.",
            field="postgres.url",
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaMismatch(
            "This role may not create extensions. Let a superuser run `create extension vector` once.",
            field="postgres.url",
        ) from error
    row = connection.execute("select extversion from pg_extension where extname = 'vector'").fetchone()
    version = str(row[0]) if row else "0"
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_VECTOR:
        raise SchemaMismatch(
            f"pgvector is {version}; filtered searches need 0.8 or newer. Run `alter extension vector update`.",
            field="postgres.url",
        )
    for schema in (SCHEMA, "langgraph"):
        connection.execute(f"create schema if not exists {schema}".encode())


def _upgrade(dsn: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            config = scripts()
            at = MigrationContext.configure(
                connection, opts={"version_table_schema": SCHEMA}
            ).get_current_revision()
            known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
            if at is not None and at not in known:
                raise SchemaMismatch(
                    f"The database is at revision {at}, which this version of agentflow does not know. "
                    "Install the newer version again, or restore a backup.",
                    field="postgres.url",
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    finally:
        engine.dispose()


def _prepare_checkpoints(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("set search_path to langgraph")
        PostgresSaver(connection).setup()


def scripts() -> Config:
    """Alembic's view of our revisions."""
    config = Config()
    config.set_main_option("script_location", str(_folder()))
    config.set_main_option("path_separator", "os")
    return config


def _folder() -> Path:
    """Inside the wheel, or beside src/ in a checkout."""
    packaged = Path(str(resources.files("agentflow"))) / "_migrations"
    if packaged.is_dir():
        return packaged
    spec = importlib.util.find_spec("agentflow")
    origin = Path(spec.origin) if spec and spec.origin else Path(__file__)
    return origin.parents[2] / "migrations"
