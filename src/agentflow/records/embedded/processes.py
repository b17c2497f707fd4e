"""What runs on a data folder: its postmaster.pid judged against the processes that are really there."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentflow.errors import DatabaseError

FAST, IMMEDIATE, KILL = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGKILL,
)  # SIGTERM waits for every client to leave
PATIENCE = {FAST: 30.0, IMMEDIATE: 5.0, KILL: 5.0}
PROC = Path("/proc")
Verdict = Literal["leave", "take over", "disown"]


@dataclass(frozen=True)
class PidFile:
    """postmaster.pid: the process of line 1 and the state of line 8 ("starting", "ready", "stopping")."""

    pid: int
    state: str


def parse_pid_file(text: str) -> PidFile | None:
    """None for a file that is empty or half-written."""
    lines = text.splitlines()
    if not lines or not re.fullmatch(r"-?[0-9]{1,10}", lines[0].strip()):
        return None
    return PidFile(abs(int(lines[0])), lines[7].strip() if len(lines) > 7 else "")


def read_pid_file(data: Path) -> PidFile | None:
    try:
        return parse_pid_file((data / "postmaster.pid").read_text(errors="replace"))
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it. `arguments` is empty for a zombie."""

    pid: int
    uid: int
    state: str
    arguments: tuple[str, ...]

    def serves(self, data: Path, mark: str) -> bool:
        """Whether this is a Postgres process on `data`; `mark` is in the titles of all that we start."""
        if not self.arguments or not Path(self.arguments[0].split(":")[0]).name.startswith("postgres"):
            return False
        return str(data) in self.arguments or any(mark in argument for argument in self.arguments)


def look(pid: int) -> Process | None:
    """The process, or None if there is none (or no /proc to ask)."""
    try:
        status = (PROC / str(pid) / "status").read_text(errors="replace")
        arguments = (PROC / str(pid) / "cmdline").read_text(errors="replace")
    except OSError:  # it ended while we looked
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    words = tuple(word for word in arguments.split("\0") if word)
    return Process(pid, int(fields["Uid"].split()[1]), fields["State"].strip()[0], words)


def judge(process: Process | None, *, uid: int, serves: bool) -> Verdict:
    """What to do about the process that postmaster.pid names, while we hold the folder's lock.

    "leave": Postgres itself sees that the file is stale. "take over": the orphan of a killed supervisor
    still serves and has to be stopped. "disown": the number was given to somebody else since, or to a
    zombie; Postgres would believe it to be a server.
    """
    if process is None or process.uid != uid:
        return "leave"
    if process.state == "Z":
        return "disown"
    return "take over" if serves else "disown"


def leftovers(data: Path, mark: str) -> Iterator[Process]:
    """Live Postgres processes on `data`: children that have not noticed their postmaster's end."""
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        process = look(int(entry.name)) if entry.name.isdigit() else None
        if process is not None and process.state != "Z" and process.serves(data, mark):
            yield process


def clear(data: Path, mark: str, *, uid: int) -> int | None:
    """Stop what still serves `data`, and return the pid that Postgres must be told to ignore, if any.

    Only for the holder of the folder's lock. Raises DatabaseError if something cannot be stopped.
    """
    pid_file = read_pid_file(data)
    if pid_file is None:
        return None
    process = look(pid_file.pid)
    verdict = judge(process, uid=uid, serves=process is not None and process.serves(data, mark))
    if verdict == "take over":
        end(pid_file.pid, lambda: _gone(pid_file.pid))
    for child in leftovers(data, mark):
        end(child.pid, lambda pid=child.pid: _gone(pid), first=IMMEDIATE)  # type: ignore[misc]
    return pid_file.pid if verdict == "disown" else None


def _gone(pid: int) -> bool:
    process = look(pid)
    return process is None or process.state == "Z"


def end(pid: int, gone: Callable[[], bool], *, first: signal.Signals = FAST) -> None:
    """Ask, then insist: fast shutdown, immediate shutdown, kill. Raises DatabaseError if it stays."""
    steps = list(PATIENCE)
    for step in steps[steps.index(first) :]:
        if gone():  # its number may be somebody else's by now
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, step)
        if wait_until(gone, PATIENCE[step]):
            return
    raise DatabaseError(
        f"Postgres process {pid} cannot be stopped, not even by SIGKILL. End it by hand, then start again."
    )


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll every 10 ms; whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
