import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import DatabaseError
from agentflow.records.embedded.processes import PidFile, Process, clear, end, judge, look, parse_pid_file

READY = "4711\n/data\n1795320418\n5432\n/tmp/s\n\n 16039943         4\nready   \n"


def process(*arguments, uid=70, state="S"):
    return Process(4711, uid, state, arguments)


def test_a_pid_file_tells_process_and_state():
    assert parse_pid_file(READY) == PidFile(4711, "ready")


def test_a_pid_file_without_state_is_of_a_starting_server():
    assert parse_pid_file("4711\n/data\n") == PidFile(4711, "")


@pytest.mark.parametrize("text", ["", "\n", "postgres\n/data\n"])
def test_a_half_written_pid_file_names_nobody(text):
    assert parse_pid_file(text) is None


@given(st.text() | st.from_regex(r"-*[0-9²]+\n?"))
def test_no_pid_file_breaks_the_parser(text):
    found = parse_pid_file(text)
    assert found is None or found.pid >= 0


@pytest.mark.parametrize(
    ("found", "serves", "verdict"),
    [
        (None, False, "leave"),
        (process("sleep", uid=0), False, "leave"),
        (process("postgres", "-D", "/data", uid=0), True, "leave"),
        (process("postgres", "-D", "/data"), True, "take over"),
        (process("sleep"), False, "disown"),
        (process(state="Z"), False, "disown"),
    ],
)
def test_what_becomes_of_the_process_in_the_pid_file(found, serves, verdict):
    assert judge(found, uid=70, serves=serves) == verdict


@pytest.mark.parametrize(
    ("arguments", "serves"),
    [
        (("/x/bin/postgres", "-D", "/data"), True),
        (("/x/bin/postgres", "-D", "/proc/self/fd/3", "-c", "cluster_name=afpg-12"), True),
        (("postgres: afpg-12: checkpointer ",), True),
        (("/x/bin/postgres", "-D", "/other"), False),
        (("/usr/bin/tail", "-f", "/data"), False),
        ((), False),
    ],
)
def test_only_postgres_processes_with_our_folder_or_mark_serve_it(arguments, serves):
    assert process(*arguments).serves(Path("/data"), "afpg-12") is serves


def test_this_process_is_seen_as_it_is():
    seen = look(os.getpid())
    assert seen is not None
    assert (seen.pid, seen.uid, seen.state in "RS") == (os.getpid(), os.geteuid(), True)


def test_nobody_is_seen_where_nobody_is():
    assert look(2**22 + 1) is None


def test_without_a_pid_file_nothing_is_stopped_or_disowned(tmp_path):
    assert clear(tmp_path, "afpg-12", uid=os.geteuid()) is None


def test_what_ignores_the_first_signal_gets_a_harder_one(monkeypatch):
    monkeypatch.setattr(
        "agentflow.records.embedded.processes.PATIENCE", {signal.SIGINT: 0.1, signal.SIGQUIT: 60.0}
    )
    # Who starts these tests in the background may have left SIGQUIT ignored, and children inherit that.
    deaf = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
print(flush=True)
sys.stdin.read()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", deaf], **pipes) as child:
        child.stdout.readline()
        end(child.pid, lambda: child.poll() is not None)
        assert child.returncode == -signal.SIGQUIT


def test_what_nothing_stops_is_named(monkeypatch):
    monkeypatch.setattr("agentflow.records.embedded.processes.PATIENCE", {signal.SIGINT: 0.0})
    with pytest.raises(DatabaseError, match=f"process {2**22 + 1} cannot be stopped"):
        end(2**22 + 1, lambda: False)
