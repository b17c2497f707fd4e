"""What every test has: a clean environment, and one real Postgres for the session."""

import asyncio
import importlib.util
import itertools
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import structlog
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
from agentflow.records.migrate import migrate

LOCAL = ("torch", "transformers", "peft")
# How fast a busy machine makes up examples is no fact about agentflow.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make fuzz` asks for more."""
    parser.addoption(
        "--max-examples", default="5", help="requests that test_fuzz.py makes up for each address"
    )
    parser.addoption("--seed", default="1", help="of those requests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the in-process engine need the extra `local`, whose torch not every platform offers."""
    missing = [part for part in LOCAL if importlib.util.find_spec(part) is None]
    reason = f"the extra `local` is not installed: {', '.join(missing)}"
    for item in items:
        if missing and item.get_closest_marker("local"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """As in the product: on a busy machine several threads make small matrices many times slower."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the developer's own settings."""
    for name in list(os.environ):
        if name == "DATABASE_URL" or (
            name.startswith("AGENTFLOW_") and not name.startswith("AGENTFLOW_TEST_")
        ):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command that a test runs sets up logging, on a stream that is closed with it: no other test hears of that."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def soon() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait for a fact that other tasks, threads or processes bring about: a time would be a guess at the machine."""

    async def wait(fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not fact():  # noqa: ASYNC110 - facts have no event
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """DSN of a migrated database on an embedded server that this session starts and stops."""
    with tempfile.TemporaryDirectory(prefix="agentflow-test-", ignore_cleanup_errors=True) as folder:
        fast = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        server = EmbeddedPostgres(EmbeddedOptions(Path(folder) / "postgres", settings=fast, sync=False))
        dsn = server.start()
        migrate(dsn)
        yield dsn
        server.stop()


@pytest.fixture(scope="session")
def fresh_database(postgres: str) -> Callable[[], str]:
    """A function that makes an empty, migrated database and returns its DSN."""
    numbers = itertools.count()
    admin = psycopg.conninfo.make_conninfo(postgres, dbname="postgres")

    def make() -> str:
        name = f"test_{next(numbers)}"
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"create database {name} template agentflow".encode())
        return psycopg.conninfo.make_conninfo(postgres, dbname=name)

    return make


@pytest.fixture
def database(fresh_database: Callable[[], str]) -> str:
    """DSN of a database of this test's own."""
    return fresh_database()


@pytest.fixture
def posted_database(database: str) -> str:
    """The same where every scope has postings from its first memory on, as otherwise only large ones have."""
    with psycopg.connect(database) as connection:
        connection.execute("alter table agentflow.scope alter posted set default true")
    return database
