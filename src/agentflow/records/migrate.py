"""Bring a database to this version's schema, once, however many processes start at the same time."""

import contextlib
import importlib.util
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.store.postgres import PostgresStore
from psycopg import sql
from psycopg.rows import dict_row

from agentflow.errors import DatabaseDown, SchemaMismatch
from agentflow.records import job_tables
from agentflow.records.ownership import APP, BACKGROUND, ROLES, protect

if TYPE_CHECKING:
    from alembic.config import Config

LOCK = 0x61666C77  # "aflw": one key for every process that migrates
SCHEMA = "agentflow"
MINIMUM_VECTOR = (0, 8)
CHECKPOINTS = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
# Columns of other libraries' that hold what people wrote, and of which the planner keeps samples (see revision 0020).
SAMPLED = """
select n.nspname as schema, c.relname as table, a.attname as column
from pg_namespace n join pg_class c on c.relnamespace = n.oid join pg_attribute a on a.attrelid = c.oid
where c.relkind = 'r' and coalesce(a.attstattarget, -1) <> 0 and (n.nspname, c.relname, a.attname) in (
  ('langgraph', 'checkpoints', 'checkpoint'), ('langgraph', 'checkpoints', 'metadata'),
  ('langgraph', 'checkpoint_blobs', 'blob'), ('langgraph', 'checkpoint_writes', 'blob'),
  ('langgraph', 'store', 'prefix'), ('langgraph', 'store', 'key'), ('langgraph', 'store', 'value'),
  ('jobs', 'procrastinate_jobs', 'args'))
"""
SAMPLES = """
delete from pg_statistic s using pg_attribute a
where s.starelid = a.attrelid and s.staattnum = a.attnum and a.attstattarget = 0
  and a.attrelid in (select oid from pg_class where relnamespace::regnamespace::text in ('langgraph', 'jobs'))
"""
# Roles that are not there, or that we may not take on.
LACKING = """
select wanted, r.oid is not null from unnest(%(roles)s::text[]) wanted left join pg_roles r on r.rolname = wanted
where r.oid is null or not pg_has_role(current_user, r.oid, 'member')
"""


def migrate(dsn: str) -> str:
    """Upgrade to the newest revision and return its id.

    Raises DatabaseDown, or SchemaMismatch if the database is newer than this version of agentflow
    or its pgvector is missing or too old.
    """
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as lock:
            lock.execute("select pg_advisory_lock(%s)", (LOCK,))
            _prepare(lock)
            _prepare_roles(lock)
            if current(lock) != head():
                _upgrade(dsn)
            _prepare_checkpoints(dsn)
    except psycopg.OperationalError as error:
        raise DatabaseDown(f"Postgres does not answer: {str(error).strip()}", field="postgres.url") from error
    return head()


def head() -> str:
    """The newest revision this version of agentflow knows: revisions are called by the numbers of their files."""
    return max(file.name.partition("_")[0] for file in (_folder() / "versions").glob("[0-9]*_*.py"))


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


def _prepare_roles(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """The roles under which statements run. Another database's migration may make them at the same moment."""
    lacking = connection.execute(LACKING, {"roles": list(ROLES)}).fetchall()
    try:
        for role, there in lacking:
            name = sql.Identifier(str(role))
            if not there:
                with contextlib.suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                    connection.execute(sql.SQL("create role {}").format(name))
            # Taken on by name only: whoever forgets to, sees nothing.
            how = " with inherit false, set true" if connection.info.server_version >= 160000 else ""
            connection.execute(sql.SQL("grant {} to current_user" + how).format(name))
        for schema in (SCHEMA, "langgraph"):
            connection.execute(f"grant usage on schema {schema} to {APP}, {BACKGROUND}".encode())
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaMismatch(
            f"This role may not create the roles {APP} and {BACKGROUND}, under which agentflow's statements run. "
            f"Let a superuser run once: create role {APP}; create role {BACKGROUND}; "
            f"grant {APP}, {BACKGROUND} to YOUR_ROLE with inherit false.",
            field="postgres.url",
        ) from error


def _upgrade(dsn: str) -> None:
    """Alembic and SQLAlchemy are imported here: most starts find the newest schema and go without them."""
    from alembic import command  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from sqlalchemy import create_engine  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

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
        for table in CHECKPOINTS:  # its primary key begins with the thread too
            connection.execute(f"drop index if exists {table}_thread_id_idx".encode())
        _protect_checkpoints(connection)
        PostgresStore(connection).setup()
        _protect_store(connection)
        job_tables.prepare(connection)
        _forget_samples(connection)


def _protect_checkpoints(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """LangGraph knows no owners: its rows get theirs by default, from whoever writes."""

    def execute(statement: str) -> None:
        connection.execute(statement.encode())

    for table in CHECKPOINTS:
        protected = "select relforcerowsecurity as done from pg_class where oid = %s::regclass"
        row = connection.execute(protected, (f"langgraph.{table}",)).fetchone()
        if row and row["done"]:
            continue
        with connection.transaction():
            execute(f"alter table {table} add tenant int default agentflow.tenant()")
            execute(f"alter table {table} add user_ref text default agentflow.user_ref()")
            protect(execute, table, "user", schema="langgraph")
            execute(f"set local role {BACKGROUND}")
            execute(
                f"update {table} x set tenant = t.tenant, user_ref = t.user_ref "  # noqa: S608 - constants
                "from agentflow.thread t where t.id::text = x.thread_id"
            )
            execute(f"delete from {table} where tenant is null")  # noqa: S608 - constants
            execute("reset role")
            execute(f"alter table {table} alter tenant set not null, alter user_ref set not null")


def _protect_store(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """As the checkpoints; an item's name begins with its owner's (records/protocol/store.py)."""

    def execute(statement: str) -> None:
        connection.execute(statement.encode())

    row = connection.execute(
        "select relforcerowsecurity as done from pg_class where oid = 'langgraph.store'::regclass"
    ).fetchone()
    if row and row["done"]:
        return
    with connection.transaction():
        execute("alter table store add tenant int not null default agentflow.tenant()")
        execute("alter table store add user_ref text not null default agentflow.user_ref()")
        protect(execute, "store", "user", schema="langgraph")


def _forget_samples(connection: psycopg.Connection[dict[str, Any]]) -> None:
    found = connection.execute(SAMPLED).fetchall()
    for one in found:
        table, column = sql.Identifier(one["schema"], one["table"]), sql.Identifier(one["column"])
        connection.execute(sql.SQL("alter table {} alter {} set statistics 0").format(table, column))
    if found:
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            connection.execute(SAMPLES)


def scripts() -> "Config":
    """Alembic's view of our revisions."""
    from alembic.config import Config  # noqa: PLC0415 - see _upgrade

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
