"""Where a configuration lies, and what is found from there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from agentflow import tiny
from agentflow.adapters import BaseShape
from agentflow.settings import Environment, Role, Settings

Progress = Callable[[str], None]


def silent(_step: str) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Place:
    """Where the configuration lies (`folder`: relative paths start there) and what the environment gives.

    `file` is read again when it changes; None: it never does. `graphs` is a langgraph.json whose graphs are served
    beside ours. `extra_roles` come from the command line and stay.
    """

    settings: Settings
    environment: Environment
    folder: Path
    file: Path | None = None
    graphs: Path | None = None
    extra_roles: Mapping[str, Role] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """Tells this folder from another one of this machine; does not tell where it lies."""
        return sha256(str(self.folder).encode()).hexdigest()[:16]


def base_folder(place: Place) -> str:
    """A folder or hub id; `tiny` is the shipped model."""
    base = place.settings.model.base
    if base == "tiny":
        return str(tiny.BASE)
    local = place.folder / Path(base).expanduser()
    return str(local) if local.is_dir() else base


def base_shape(place: Place) -> BaseShape | None:
    """The base's shapes where its config.json is at hand; a hub id is judged by the engine itself."""
    folder = Path(base_folder(place))
    return BaseShape.read(folder) if folder.is_dir() else None
