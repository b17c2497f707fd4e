"""The embedded Postgres after crashes: its own, its supervisor's, and pid files that lie."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from agentflow.errors import DatabaseError
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
from agentflow.records.embedded.cluster import mark_of
from agentflow.records.embedded.processes import leftovers, look, read_pid_file

OWNER = """
import sys
from pathlib import Path
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
server = EmbeddedPostgres(EmbeddedOptions(Path(sys.argv[1]), sync=False))
print(server.start(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data(tmp_path):
    return tmp_path / "postgres"


@pytest.fixture
def server(data):
    server = EmbeddedPostgres(
        EmbeddedOptions(data, settings={"shared_buffers": "16MB", "fsync": "off"}, sync=False)
    )
    yield server
    server.stop()


@pytest.fixture
def impatient(monkeypatch):
    """A supervisor that gives up early."""
    monkeypatch.setattr("agentflow.records.embedded.server.PAUSE", 0.01)
    monkeypatch.setattr("agentflow.records.embedded.server.ATTEMPTS", 3)


@pytest.fixture
def orphaned(data):
    """A server whose supervisor was killed: its DSN and postmaster."""
    pipe, command = subprocess.PIPE, [sys.executable, "-c", OWNER, str(data)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as owner:
        dsn = owner.stdout.readline()
        ask(dsn, "create table kept as select 42 as n")
        owner.kill()
    return dsn, read_pid_file(data).pid


def ask(dsn, statement):
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def ask_again(dsn, statement, seconds=30.0):
    """Ask until it is answered."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask(dsn, statement)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def kill_postmaster(data):
    os.kill(read_pid_file(data).pid, signal.SIGKILL)


def serving(data):
    return list(leftovers(data, mark_of(data.resolve())))


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def socket_folder_of(server):
    return Path(conninfo_to_dict(server.dsn)["host"])


def spin(dsn):
    """A connection whose backend is too busy to notice anything."""
    connection = psycopg.connect(dsn, autocommit=True)
    connection.pgconn.send_query(b"do $$ begin loop end loop; end $$")
    return connection


def test_a_killed_postmaster_comes_back_under_the_same_dsn_with_its_rows(server, data):
    dsn = server.start()
    ask(dsn, "create table kept as select 42 as n")
    kill_postmaster(data)
    assert ask_again(dsn, "select n from kept") == 42
    assert until(server.alive)


def test_no_acknowledged_row_is_lost_when_everything_is_killed(server, data):
    dsn = server.start()
    ask(dsn, "create table kept (n int)")
    with psycopg.connect(dsn, autocommit=True) as writer:
        for n in range(200):
            writer.execute("insert into kept values (%s)", [n])
        for process in serving(data):
            os.kill(process.pid, signal.SIGKILL)
    assert ask_again(dsn, "select count(*) from kept") == 200


def test_a_busy_backend_of_a_killed_postmaster_does_not_block_the_restart(server, data):
    dsn = server.start()
    busy = spin(dsn)
    kill_postmaster(data)
    assert ask_again(dsn, "select 1") == 1
    busy.close()


def test_between_crash_and_restart_the_server_is_not_alive(server, data):
    server.start()
    kill_postmaster(data)
    assert until(lambda: not server.alive())
    assert until(server.alive)


def test_a_server_that_cannot_come_back_is_given_up_with_the_reason(server, data, impatient):
    server.start()
    control = data / "global" / "pg_control"
    control.rename(control.with_suffix(".away"))
    kill_postmaster(data)
    assert until(lambda: server.failure is not None)
    assert "left stopped" in server.failure
    assert "pg_control" in server.failure
    assert not server.alive()
    server.stop()
    assert not socket_folder_of(server).exists()


def test_a_server_that_keeps_crashing_is_given_up(server, data, impatient):
    server.start()
    while server.failure is None:
        assert until(lambda: server.alive() or server.failure is not None)
        if server.alive():
            kill_postmaster(data)
        until(lambda: not server.alive())
    assert "never for longer than" in server.failure


def test_after_giving_up_a_start_tries_anew(server, data, impatient):
    dsn = server.start()
    control = data / "global" / "pg_control"
    control.rename(control.with_suffix(".away"))
    kill_postmaster(data)
    assert until(lambda: server.failure is not None)
    control.with_suffix(".away").rename(control)
    assert server.start() == dsn
    assert (ask(dsn, "select 1"), server.failure) == (1, None)


def test_stopping_right_after_a_crash_leaves_nothing_running(server, data):
    server.start()
    kill_postmaster(data)
    server.stop()
    assert not server.alive()
    assert until(lambda: serving(data) == [])


def test_the_orphan_of_a_killed_supervisor_is_taken_over(server, data, orphaned):
    dsn, postmaster = orphaned
    assert ask(dsn, "select n from kept") == 42
    assert server.start() == dsn.strip()
    assert ask(dsn, "select n from kept") == 42
    assert read_pid_file(data).pid != postmaster
    assert "received fast shutdown request" in data.with_name("postgres.log").read_text()


def test_supervisor_and_postmaster_killed_under_load_need_no_hand(server, data, orphaned):
    dsn, postmaster = orphaned
    busy = spin(dsn)
    os.kill(postmaster, signal.SIGKILL)
    server.start()
    assert ask(dsn, "select n from kept") == 42
    busy.close()


@pytest.fixture
def stopped(server, data):
    """A cluster at rest, and the numbers to start a process as its owner."""
    server.start()
    server.stop()
    owner = data.stat()
    return {} if os.geteuid() else {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": ()}


def forge(data, pid):
    text = f"{pid}\n{data}\n1795320418\n5432\n/tmp\n\n 16039943         4\nready   \n"
    (data / "postmaster.pid").write_text(text)
    os.chown(data / "postmaster.pid", data.stat().st_uid, data.stat().st_gid)


def test_a_pid_that_belongs_to_somebody_else_now_is_no_obstacle(server, data, stopped):
    with subprocess.Popen(["sleep", "60"], cwd="/", **stopped) as stranger:
        forge(data, stranger.pid)
        assert ask(server.start(), "select 1") == 1
        assert stranger.poll() is None
        stranger.kill()


def test_a_zombies_pid_is_no_obstacle(server, data, stopped):
    with subprocess.Popen(["true"], cwd="/", **stopped) as zombie:
        assert until(lambda: look(zombie.pid).state == "Z")
        forge(data, zombie.pid)
        assert ask(server.start(), "select 1") == 1


def test_a_pid_of_nobody_is_no_obstacle(server, data, stopped):
    forge(data, 2**22 - 3)
    assert ask(server.start(), "select 1") == 1


def test_an_empty_pid_file_is_told_in_postgres_own_words(server, data, stopped):
    forge(data, 1)
    (data / "postmaster.pid").write_text("")
    with pytest.raises(DatabaseError, match="is empty"):
        server.start()
