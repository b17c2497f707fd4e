"""Recorded turns: read for a replay, and told by `agentflow plan --from-ledger`."""

import asyncio
import json
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from agentflow.cli.commands import app
from agentflow.errors import DatabaseDown, SchemaMismatch
from agentflow.protocols import Outcome, Request
from agentflow.records.connections import open_connections
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres, neighbour
from agentflow.records.history import spoken
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.scopes import Scopes

USAGE = {"prompt_tokens": 1, "completion_tokens": 1}


async def turns(dsn: str, roles: list[str | None]) -> None:
    connections = await open_connections(dsn, size=2)
    ledger = PostgresLedger(connections, Scopes(connections, {}, "test", 2), worker="test")
    for role in roles:
        lease = (await ledger.accept(Request(text="hi", tenant=len(role or "")))).lease
        adapter = f"{role}@0123456789ab" if role else None
        await ledger.finish(lease, Outcome("hi", {}, role, adapter, USAGE, 1))
    await connections.close()


def test_turns_of_every_tenant_are_read_in_their_order(database: str) -> None:
    asyncio.run(turns(database, ["coder", None, "artist", "coder"]))
    assert [turn.role for turn in spoken(database, last=10)] == ["coder", "artist", "coder"]
    assert [turn.role for turn in spoken(database, last=2)] == ["artist", "coder"]


def test_a_database_without_turns_table_says_what_to_do(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("drop schema agentflow cascade")
    with pytest.raises(SchemaMismatch, match="agentflow migrate"):
        spoken(database, last=1)


def test_a_database_that_is_not_there_is_down() -> None:
    with pytest.raises(DatabaseDown):
        spoken("postgresql://127.0.0.1:1/x", last=1)


def test_plan_from_ledger_advises_on_the_recorded_roles(database: str, tmp_path: Path) -> None:
    asyncio.run(turns(database, ["coder", "artist"] * 4))
    roles = {name: {"lora_path": f"tiny:{name}", "examples": ["a", "b"]} for name in ("coder", "artist")}
    file = tmp_path / "agentflow.yaml"
    file.write_text(json.dumps({"postgres": {"url": database}, "roles": roles}))
    picture = tmp_path / "picture.svg"
    told = CliRunner().invoke(app, ["plan", "-c", str(file), "--from-ledger", "--picture", str(picture)])
    assert told.exit_code == 0, told.exception
    for word in ("8 turns over", "of the optimum", "advised", "coder", "artist"):
        assert word in told.stdout
    assert "8 turns replayed" in picture.read_text()


def test_a_server_of_another_process_is_found_by_its_folder(tmp_path: Path) -> None:
    server = EmbeddedPostgres(EmbeddedOptions(tmp_path / "data", sync=False))
    dsn = server.start()
    try:
        with psycopg.connect(neighbour(tmp_path / "data")) as one, psycopg.connect(dsn) as other:
            assert one.info.dbname == other.info.dbname
    finally:
        server.stop()
    assert neighbour(tmp_path / "data") is None
