"""One Postgres cluster on disk: made, checked, started and stopped as a direct child of this process."""

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

from agentflow.errors import DatabaseDown, DatabaseError
from agentflow.records.embedded.account import Account
from agentflow.records.embedded.binaries import major_version
from agentflow.records.embedded.processes import clear, end, read_pid_file, wait_until

LOCALE = ("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8")
SOCKET_LIMIT = 107  # bytes of a unix socket's path (sockaddr_un on Linux: 108 with the closing zero)
SOCKET_FILE = ".s.PGSQL.5432"
LONGEST_FOLDER = 512  # Postgres cuts paths at 1,024
LOG_LIMIT = 8 * 1024 * 1024
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's, and only measured
SETTINGS: Mapping[str, str] = {
    "max_connections": "300",  # eight workers take up to 34 each
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "unix_socket_permissions": "0700",
}


def mark_of(data: Path) -> str:
    """A short name for a data folder: of its socket folder and of its server's processes."""
    return "afpg-" + hashlib.sha1(os.fsencode(data), usedforsecurity=False).hexdigest()[:12]


@dataclass(frozen=True)
class Cluster:
    """`data` is resolved and locked by us; `binaries` can be run by `account`."""

    data: Path
    binaries: Path
    account: Account
    sockets: Path
    settings: Mapping[str, str]
    sync: bool

    @property
    def mark(self) -> str:
        return mark_of(self.data)

    @property
    def log(self) -> Path:
        return self.data.with_name(self.data.name + ".log")

    def dsn(self, database: str) -> str:
        return make_conninfo(host=str(self.sockets), port=5432, user="postgres", dbname=database)

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Make the cluster if there is none yet, and check that these binaries can serve it.

        Raises DatabaseError for a folder of something else or of another major version.
        """
        version = self.data / "PG_VERSION"
        if not version.is_file():
            progress(f"making a database in {self.data}")
            self._initialise()
        made_by, ours = version.read_text().strip(), major_version(self.binaries, self.account)
        if made_by != str(ours):
            raise DatabaseError(
                f"The data folder {self.data} was made by Postgres {made_by}, but the binaries in "
                f"{self.binaries} are {ours}. Dump it with pg_dump of {made_by} and restore it into a new "
                f"folder, or point postgres.bin_dir to binaries of {made_by}.",
                field="postgres.data",
                value=str(self.data),
            )

    def _initialise(self) -> None:
        """Run initdb beside the place, then rename: a half-made folder never looks like a cluster."""
        self._refuse_foreign_folder()
        fresh = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)  # what a killed start left; the lock is ours
        fresh.mkdir(mode=0o700)
        self.account.take(fresh)
        with self._reachable(fresh) as (path, descriptors):
            options = (*LOCALE, "-U", "postgres", "--auth=trust", *(() if self.sync else ("--no-sync",)))
            run = subprocess.run(  # noqa: S603 - our own binary
                [self.binaries / "initdb", "-D", path, *options],
                capture_output=True, text=True, check=False, cwd="/", env={"LC_ALL": "C"},
                pass_fds=descriptors, **self.account.identity(),
            )  # fmt: skip
        if run.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise DatabaseError(f"initdb failed for {self.data}: {(run.stderr or run.stdout).strip()}")
        fresh.rename(self.data)

    def _refuse_foreign_folder(self) -> None:
        if self.data.is_mount():
            raise DatabaseError(
                f"{self.data} is a mount point, and a new database is put in place by a rename. "
                f"Point postgres.data to a folder inside it, for example {self.data / 'postgres'}.",
                field="postgres.data",
                value=str(self.data),
            )
        if self.data.exists() and (not self.data.is_dir() or any(self.data.iterdir())):
            raise DatabaseError(
                f"{self.data} is not empty and has no PG_VERSION: it is no Postgres data folder, or a broken "
                "one. Move it away or choose another place for postgres.data.",
                field="postgres.data",
                value=str(self.data),
            )

    @contextmanager
    def _reachable(self, folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        """A path by which the account opens `folder`, and the descriptors that its process must inherit.

        A folder below root's home cannot be walked into by anybody else. An open descriptor can:
        /proc/self/fd/N leads straight to it, for the postmaster and for every child it forks.
        """
        walkable = not self.account.switch or self.account.may_enter(folder)
        if walkable and len(os.fsencode(folder)) <= LONGEST_FOLDER:
            yield str(folder), ()
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)

    def launch(self, *, timeout: float, give_up: Callable[[], bool]) -> subprocess.Popen[bytes]:
        """Start the postmaster and wait until it takes connections.

        What an earlier supervisor left is stopped first. Raises DatabaseError with the log's end when
        the server gives up, DatabaseDown when it is not ready after `timeout` seconds (recovery after a
        crash can be long) or when `give_up` says so.
        """
        disowned = clear(self.data, self.mark, uid=self.account.uid)
        self._open_sockets()
        with self.log.open("ab") as log:
            log_from = log.tell()
            process = self._spawn(log.fileno(), disowned)
        try:
            settled = wait_until(lambda: self._settled(process) or give_up(), timeout)
        except BaseException:
            self.stop(process)
            raise
        if process.poll() is not None:
            raise DatabaseError(
                f"Postgres did not start on {self.data}.\n{self._log_since(log_from)}".strip()
            )
        if settled and not give_up():
            return process
        self.stop(process)
        raise DatabaseDown(
            f"Postgres on {self.data} was not ready after {timeout:g} s. After a crash it replays its log: "
            f"raise postgres.start_timeout if {self.log} shows progress.\n{self._log_since(log_from)}".strip()
        )

    def _spawn(self, log: int, disowned: int | None) -> subprocess.Popen[bytes]:
        settings = {"cluster_name": self.mark, **_shared_memory(), **SETTINGS, **self.settings}
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        environment = {"LC_ALL": "C"} | ({} if disowned is None else {"PG_GRANDPARENT_PID": str(disowned)})
        with self._reachable(self.data) as (path, descriptors):
            return subprocess.Popen(  # noqa: S603 - our own binary
                [self.binaries / "postgres", "-D", path, "-k", str(self.sockets), "-h", "", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment,
                start_new_session=True, pass_fds=descriptors, **self.account.identity(),
            )  # fmt: skip

    def _settled(self, process: subprocess.Popen[bytes]) -> bool:
        found = read_pid_file(self.data)
        ready = found is not None and found.pid == process.pid and found.state == "ready"
        return ready or process.poll() is not None

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Fast shutdown, then harder ones. Raises DatabaseError if the process survives them all."""
        end(process.pid, lambda: process.poll() is not None)

    def rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.rename(self.log.with_name(self.log.name + ".1"))

    def _log_since(self, offset: int) -> str:
        with self.log.open("rb") as log:
            log.seek(offset)
            lines = log.read(64 * 1024).decode(errors="replace").splitlines()
        return "\n".join(lines[-12:])

    def _open_sockets(self) -> None:
        """Whoever can reach the socket is superuser (trust): the folder is the account's alone.

        Raises DatabaseError when somebody else has put something at its place.
        """
        if not self.sockets.exists():
            self.sockets.mkdir(mode=0o700)
            self.account.take(self.sockets)
        status = self.sockets.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != self.account.uid:
            raise DatabaseError(
                f"{self.sockets} shall hold the database's socket but belongs to user {status.st_uid}, "
                f"not to {self.account.name!r}. Remove it and start again.",
            )
        if stat.S_IMODE(status.st_mode) != 0o700:
            self.sockets.chmod(0o700)

    def close_sockets(self) -> None:
        """Remove what a server that is gone left of its socket."""
        if self.sockets.is_dir() and self.sockets.lstat().st_uid == self.account.uid:
            shutil.rmtree(self.sockets, ignore_errors=True)


def _shared_memory() -> dict[str, str]:
    """Docker gives /dev/shm 64 MB, too little for a parallel index build: then use files."""
    if not SHARED_MEMORY.is_dir():
        return {}
    space = os.statvfs(SHARED_MEMORY)
    return {} if space.f_frsize * space.f_blocks >= 1 << 30 else {"dynamic_shared_memory_type": "mmap"}


def socket_folder(data: Path, account: Account, preferred: Path | None) -> Path:
    """A place for the socket: in `preferred`, in the system's temporary folder or in /tmp.

    Raises DatabaseError if all are missing, too long or closed to `account`.
    """
    candidates = [*([] if preferred is None else [preferred]), Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - made 0700 and checked
    for parent in candidates:
        folder = parent / mark_of(data)
        if len(os.fsencode(folder / SOCKET_FILE)) > SOCKET_LIMIT or not parent.is_dir():
            continue
        if not account.switch or account.may_enter(parent):
            return folder
    raise DatabaseError(
        f"No folder for the database's socket: {', '.join(map(str, candidates))} are missing, too long "
        f"(over {SOCKET_LIMIT} bytes with the socket's name) or closed to {account.name!r}."
    )
