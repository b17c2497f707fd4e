"""Which adapter each role speaks with: found, validated and named by digest before any engine sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentflow import tiny
from agentflow.adapters import BaseShape, identity, inspect
from agentflow.errors import AdapterError, InvalidAdapter
from agentflow.settings import Role, Settings
from agentflow.settings.values import Location, Warm

REMOTE = ("hf://", "s3://", "https://", "http://")


@dataclass(frozen=True)
class Adapter:
    """A role's adapter. `name` is `role@<first 12 of sha256>`: other weights are another name."""

    name: str
    folder: Path
    at_start: bool
    pinned: bool
    unload_after: float | None


Roster = Mapping[str, Adapter | AdapterError | None]


def roster(settings: Settings, *, folder: Path, base: BaseShape | None) -> Roster:
    """Every role's adapter, None for a role that speaks as the base, or what is wrong with its files.

    Relative paths are taken from `folder`. Reads and hashes the files: call it in a thread.
    """
    return {name: _adapter(name, role, settings, folder, base) for name, role in settings.roles.items()}


def _adapter(
    name: str, role: Role, settings: Settings, folder: Path, base: BaseShape | None
) -> Adapter | AdapterError | None:
    if role.lora_path is None:
        return None
    try:
        place = located(role.lora_path, folder, field=f"roles.{name}.lora_path")
        files = inspect(place, base=base, max_rank=settings.model.max_rank)
    except AdapterError as error:
        return error
    resting = role.location is Location.VRAM
    return Adapter(
        name=identity(name, files.sha256),
        folder=place,
        at_start=resting or role.warm is Warm.START,
        pinned=role.pin == "vram",
        unload_after=None if resting else role.unload_after,
    )


def located(lora_path: str, folder: Path, *, field: str) -> Path:
    """The folder a path stands for. Raises InvalidAdapter for an unknown shipped name or a remote source."""
    if lora_path.startswith("tiny:"):
        name = lora_path.removeprefix("tiny:")
        if name not in tiny.VOICES:
            raise InvalidAdapter(
                f"{field} = {lora_path}: shipped adapters are {', '.join(f'tiny:{one}' for one in tiny.VOICES)}.",
                field=field,
                value=lora_path,
            )
        return tiny.FOLDER / name
    if lora_path.startswith(REMOTE):
        raise InvalidAdapter(
            f"{field} = {lora_path}: remote adapters are not fetched yet; download the folder and give its path.",
            field=field,
            value=lora_path,
        )
    return (folder / Path(lora_path).expanduser()).resolve()
