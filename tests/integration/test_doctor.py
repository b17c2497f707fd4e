"""agentflow doctor: what would fail is told with the way out, and nothing is changed by looking."""

import json
import re
import socket
import time
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

from agentflow.cli.commands import app
from agentflow.engines.vllm.server import Started
from agentflow.errors import DatabaseDown
from agentflow.records.checkup import condition
from agentflow.records.migrate import head
from agentflow.settings import read_environment
from agentflow.settings.schema import Settings
from agentflow.wiring import Place
from agentflow.wiring.checkup import Row, checkup
from agentflow.wiring.checkup.database import judged
from agentflow.wiring.checkup.model import compared


def place(folder: Path, **blocks: object) -> Place:
    settings = {"model": {"engine": "double"}, "embedder": {"kind": "fake"}, **blocks}
    return Place(Settings.model_validate(settings), read_environment(), folder)


async def looked(at: Place) -> dict[str, tuple[str, str, str]]:
    return {row.what: (row.verdict, row.found, row.remedy) async for row in checkup(at)}


async def test_a_sound_database_is_at_its_revision_and_guarded(database: str) -> None:
    found = await condition(database)
    assert (found.at, found.wanted, found.roles_lacking, found.unguarded) == (head(), head(), (), ())
    assert {row.verdict for row in judged(found)} == {"ok"}


async def test_a_clock_that_is_wrong_is_told(database: str) -> None:
    rows = {row.what: row for row in judged(await condition(database, lambda: time.time() + 90))}
    assert rows["clock"].verdict == "warning"
    assert re.fullmatch(r"this machine is \d\d s ahead of the database", rows["clock"].found)


async def test_a_table_that_is_not_guarded_is_told_by_name(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("alter table agentflow.thread no force row level security")
    rows = {row.what: row for row in judged(await condition(database))}
    assert (rows["row security"].verdict, rows["row security"].found) == (
        "mistake",
        "not forced on agentflow.thread",
    )


async def test_an_empty_database_is_looked_at_and_stays_empty(postgres: str) -> None:
    dsn = make_conninfo(postgres, dbname="template1")
    rows = {row.what: row for row in judged(await condition(dsn))}
    assert (rows["schema"].verdict, rows["schema"].found) == ("warning", f"revision none of {head()}")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select to_regnamespace('agentflow')").fetchone() == (None,)


async def test_what_is_down_is_a_row_and_not_the_end(tmp_path: Path) -> None:
    rows = await looked(
        place(
            tmp_path,
            server={"port": 0},
            postgres={"url": "postgresql://nobody@127.0.0.1:1/none"},
            model={"engine": "vllm", "url": "http://127.0.0.1:1"},
            roles={"poet": {"description": "poems", "lora_path": "nowhere"}},
        )
    )
    mistakes = {what for what, (verdict, _, _) in rows.items() if verdict == "mistake"}
    assert mistakes == {"database", "engine", "adapter of poet", "plan"}
    assert rows["database"][1].startswith("Postgres does not answer")
    assert "agentflow engine start" in rows["engine"][2]


async def test_a_port_that_another_program_has_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        rows = await looked(place(tmp_path, server={"port": taken.getsockname()[1]}))
    assert (rows["address"][0], rows["address"][2]) == (
        "mistake",
        "stop that program, or choose another server.port",
    )


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
async def test_a_host_that_is_not_this_machine_is_told(tmp_path: Path, host: str) -> None:
    rows = await looked(place(tmp_path, server={"host": host}))
    assert (rows["address"][0], rows["address"][2]) == ("mistake", "mend server.host: no address of ours")


@pytest.mark.parametrize("dsn", ["not a dsn", "mysql://u:hidden@h/x", "postgresql://u:hidden@h/x?nonsense=1"])
async def test_what_is_no_address_of_postgres_is_told_without_its_password(tmp_path: Path, dsn: str) -> None:
    verdict, found, _ = (await looked(place(tmp_path, postgres={"url": dsn})))["database"]
    assert (verdict, found.split(";")[0]) == ("mistake", "postgres.url is no address of Postgres")
    assert "hidden" not in found


async def test_a_database_of_a_newer_agentflow_is_a_mistake(database: str) -> None:
    rows = {row.what: row for row in judged(replace(await condition(database), at="9999"))}
    assert (rows["schema"].verdict, rows["schema"].remedy) == (
        "mistake",
        "update agentflow, or name another database",
    )


async def test_a_look_that_breaks_hides_no_other(tmp_path: Path, monkeypatch) -> None:
    async def broken(_place: Place) -> list[Row]:
        raise ZeroDivisionError

    monkeypatch.setattr("agentflow.wiring.checkup.model.engine", broken)
    rows = await looked(place(tmp_path))
    assert (rows["engine"][:2], "adapters" in rows) == (
        ("mistake", "could not be looked at: ZeroDivisionError()"),
        True,
    )


async def test_an_address_beyond_this_machine_wants_a_key(tmp_path: Path) -> None:
    rows = await looked(place(tmp_path, server={"port": 0, "host": "0.0.0.0"}))  # noqa: S104 - never listened on
    assert rows["access"][0] == "warning"
    assert "agentflow keys create" in rows["access"][2]


@pytest.mark.parametrize(
    ("max_loras", "max_rank", "cpu", "verdict", "remedy"),
    [
        (8, 64, False, "ok", ""),
        (9, 64, True, "ok", ""),
        (8, 64, True, "mistake", "set model.slots to 7, or start it with more"),
        (4, 64, False, "mistake", "set model.slots to 4, or start it with more"),
        (8, 16, False, "mistake", "set model.max_rank to 16, or start it with more"),
        (32, 64, False, "warning", "the file uses 8 of them: the others only take memory"),
    ],
)
def test_the_engine_s_flags_are_held_against_the_file(
    max_loras: int, max_rank: int, cpu: bool, verdict: str, remedy: str
) -> None:
    row = compared(Started("0.30", max_loras, max_rank, mixes_up_base=cpu), 8, 64)
    assert (row.verdict, row.remedy) == (verdict, remedy)


def test_the_command_tells_programs_and_its_status_what_would_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agentflow.yaml").write_text("model: {engin: vllm}\n")
    told = CliRunner().invoke(app, ["doctor", "--json"])
    answer = json.loads(told.stdout)
    assert (told.exit_code, answer["ok"]) == (1, False)
    assert "did you mean engine?" in answer["rows"][0]["found"]


async def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatabaseDown):
        await condition("postgresql://nobody@127.0.0.1:1/none")
