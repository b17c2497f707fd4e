"""The operating-system user that the embedded Postgres runs as: Postgres refuses root."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.errors import ConfigError

DEDICATED = ("agentflow", "postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """A user by numbers. `switch` is False when it is the user we are already."""

    uid: int
    gid: int
    name: str
    switch: bool

    def identity(self) -> dict[str, Any]:
        """What `subprocess` needs to start a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": ()} if self.switch else {}

    def take(self, folder: Path) -> None:
        """Hand `folder` itself to this user."""
        if self.switch:
            os.chown(folder, self.uid, self.gid, follow_symlinks=False)

    def may_enter(self, folder: Path) -> bool:
        """Whether the mode bits let this user walk into `folder` (access lists are not read)."""
        return all(self._passes(part) for part in (folder, *folder.parents))

    def _passes(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def choose_account(run_as: str | None, data: Path) -> Account:
    """Who runs Postgres on `data`: ourselves; under root the configured, the owning or a dedicated user.

    Raises ConfigError when `run_as` is impossible or root finds nobody to switch to.
    """
    if os.geteuid() != 0:
        return _ourselves(run_as)
    if run_as is not None:
        return _configured(run_as)
    owner = data.stat().st_uid if data.is_dir() else 0
    if owner != 0:
        return Account(owner, data.stat().st_gid, _name_of(owner), switch=True)
    return _dedicated()


def _ourselves(run_as: str | None) -> Account:
    name = _name_of(os.geteuid())
    if run_as not in {None, name}:
        raise ConfigError(
            f"Postgres shall run as {run_as!r}, but only root can switch users and this process is {name!r}. "
            "Leave the user out, or start as root.",
            field="postgres.run_as",
            value=run_as,
        )
    return Account(os.geteuid(), os.getegid(), name, switch=False)


def _configured(run_as: str) -> Account:
    try:
        entry = pwd.getpwnam(run_as)
    except KeyError:
        raise ConfigError(
            f"Postgres shall run as {run_as!r}, but there is no such user here. Create it, or name another.",
            field="postgres.run_as",
            value=run_as,
        ) from None
    if entry.pw_uid == 0:
        raise ConfigError(
            "Postgres refuses to run as root: name another user.", field="postgres.run_as", value=run_as
        )
    return Account(entry.pw_uid, entry.pw_gid, run_as, switch=True)


def _dedicated() -> Account:
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    found = next((users[name] for name in DEDICATED if name in users), None)
    if found is None:
        raise ConfigError(
            f"Postgres refuses to run as root and none of the users {', '.join(DEDICATED)} exists here. "
            "Create one, name one, or start agentflow as a normal user.",
            field="postgres.run_as",
        )
    return Account(found.pw_uid, found.pw_gid, found.pw_name, switch=True)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
