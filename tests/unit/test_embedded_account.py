import os
import pwd
import tempfile
from pathlib import Path

import pytest

from agentflow.errors import ConfigError, DatabaseError
from agentflow.records.embedded.account import Account, choose_account
from agentflow.records.embedded.binaries import find_binaries, runnable
from agentflow.records.embedded.cluster import mark_of, socket_folder

STRANGER = Account(uid=54321, gid=54321, name="stranger", switch=True)
OURSELVES = Account(os.geteuid(), os.getegid(), "us", switch=False)
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")


@pytest.mark.parametrize(("mode", "enters"), [(0o700, False), (0o701, True), (0o770, False), (0o777, True)])
def test_a_stranger_enters_only_what_is_open_to_others(tmp_path, mode, enters):
    account = Account(54321, 54321, "stranger", switch=True)
    folder = tmp_path / "inner"
    folder.mkdir()
    folder.chmod(mode)
    assert account._passes(folder) is enters


def test_one_closed_parent_keeps_a_stranger_out(tmp_path):
    (tmp_path / "closed" / "open").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    assert not STRANGER.may_enter(tmp_path / "closed" / "open")


def test_everybody_enters_the_root_folder():
    assert STRANGER.may_enter(Path("/"))


@root_only
def test_root_lets_the_folders_owner_run_it(tmp_path):
    os.chown(tmp_path, 54321, 54322)
    assert choose_account(None, tmp_path) == Account(54321, 54322, "54321", switch=True)


@root_only
def test_root_never_runs_postgres_itself(tmp_path):
    assert choose_account(None, tmp_path / "new").uid != 0
    with pytest.raises(ConfigError, match="refuses to run as root"):
        choose_account("root", tmp_path)


@root_only
def test_an_unknown_user_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'no-such-user', but there is no such user"):
        choose_account("no-such-user", tmp_path)


def test_a_normal_user_runs_it_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    assert choose_account(None, tmp_path).switch is False


def test_a_normal_user_cannot_switch(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    with pytest.raises(ConfigError, match="only root can switch"):
        choose_account("postgres-of-another", tmp_path)


def test_a_folder_without_postgres_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no postgres and no initdb") as refusal:
        find_binaries(tmp_path)
    assert refusal.value.field == "postgres.bin_dir"


def test_the_wheel_brings_binaries():
    assert (find_binaries(None) / "initdb").is_file()


def test_closed_binaries_of_unknown_layout_are_not_copied(tmp_path):
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match="may not enter"):
        runnable(tmp_path, STRANGER, [tmp_path])


def test_the_socket_lies_in_the_preferred_folder():
    with tempfile.TemporaryDirectory() as short:  # sockets' names must be
        assert socket_folder(Path("/data"), OURSELVES, Path(short)) == Path(short) / mark_of(Path("/data"))


def test_a_folder_too_long_for_a_socket_is_passed_over(tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    assert socket_folder(Path("/data"), OURSELVES, long).parent != long


def test_a_folder_that_postgres_cannot_enter_is_passed_over(tmp_path):
    tmp_path.chmod(0o700)
    assert socket_folder(Path("/data"), STRANGER, tmp_path) != tmp_path / mark_of(Path("/data"))


def test_no_place_for_the_socket_is_an_error(monkeypatch):
    monkeypatch.setattr("agentflow.records.embedded.cluster.SOCKET_LIMIT", 10)
    with pytest.raises(DatabaseError, match="missing, too long"):
        socket_folder(Path("/data"), OURSELVES, None)


def test_two_data_folders_have_two_marks():
    assert mark_of(Path("/data")) != mark_of(Path("/data2"))
