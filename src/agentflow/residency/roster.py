"""Which adapter each role speaks with: found, validated and named by digest before any engine sees it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import file_digest
from pathlib import Path
from typing import Literal

from agentflow import tiny
from agentflow.adapters import CONFIG, WEIGHTS, AdapterFiles, BaseShape, identity, inspect
from agentflow.errors import AdapterError, InvalidAdapter
from agentflow.residency.cold import ColdPolicy
from agentflow.residency.plan import Tier
from agentflow.residency.schedule import Duty
from agentflow.settings import Role, Settings
from agentflow.settings.values import Location, Warm

REMOTE = ("hf://", "s3://", "https://", "http://")
Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Residence:
    """What the file says about where an adapter lives. Seconds throughout.

    `rest` is the tier it keeps when idle for `unload_after` (None: it never leaves VRAM by being idle); `pin` one
    it never leaves. `at_start`: it is brought up to VRAM when agentflow starts.
    """

    rest: Tier = "ram"
    at_start: bool = False
    foreseen: bool = True
    pin: Literal["vram", "ram", "disk"] | None = None
    unload_after: float | None = 600.0
    duty: Duty | None = None
    cold: ColdPolicy = field(default_factory=ColdPolicy)


@dataclass(frozen=True)
class Adapter:
    """A role's adapter. `address` is where it is fetched from, None for a local folder.

    `files` None: it has not been fetched yet, so its digest is not known. `stamp` tells whether a local folder
    still holds what was validated.
    """

    role: str
    files: AdapterFiles | None
    address: str | None = None
    expected: str | None = None
    residence: Residence = field(default_factory=Residence)
    stamp: Stamp = ()

    @property
    def name(self) -> str | None:
        """`role@<first 12 of sha256>`: other weights are another name. None until it was fetched."""
        return None if self.files is None else identity(self.role, self.files.sha256)

    def same_weights(self, other: "Adapter") -> bool:
        """Whether both stand for the same files from the same place."""
        digests = tuple(one.files and one.files.sha256 for one in (self, other))
        return (self.address, self.expected) == (other.address, other.expected) and digests[0] == digests[1]

    def fetched(self, files: AdapterFiles) -> "Adapter":
        return replace(self, files=files)


Roster = Mapping[str, Adapter | AdapterError | None]
Cached = Callable[[str], AdapterFiles | None]


def nothing_cached(_address: str) -> AdapterFiles | None:
    """A world without a disk cache."""
    return None


def roster(
    settings: Settings,
    *,
    folder: Path,
    base: BaseShape | None,
    cached: Cached = nothing_cached,
) -> Roster:
    """Every role's adapter, None for a role that speaks as the base, or what is wrong with its files.

    Relative paths are taken from `folder`; `cached` tells what an address gave before. Reads and hashes the
    local files: call it in a thread.
    """
    reading = _Reading(settings, folder, base, cached)
    return {name: reading.adapter(name, role) for name, role in settings.roles.items()}


@dataclass(frozen=True)
class _Reading:
    settings: Settings
    folder: Path
    base: BaseShape | None
    cached: Cached

    def adapter(self, name: str, role: Role) -> Adapter | AdapterError | None:
        if role.lora_path is None:
            return None
        try:
            if role.lora_path.startswith(REMOTE):
                return self._far(name, role, role.lora_path)
            return self._near(name, role, role.lora_path)
        except AdapterError as error:
            return error

    def _near(self, name: str, role: Role, path: str) -> Adapter:
        place = located(path, self.folder, field=f"roles.{name}.lora_path")
        model = self.settings.model
        roots = () if path.startswith("tiny:") else model.roots
        files = inspect(place, base=self.base, max_rank=model.max_rank, roots=roots)
        _check_expected(name, role.sha256, files)
        return Adapter(
            name, files, expected=role.sha256, residence=residence(role), stamp=stamp_of(files.folder)
        )

    def _far(self, name: str, role: Role, address: str) -> Adapter:
        if address.startswith("http://") and role.sha256 is None:
            raise InvalidAdapter(
                f"roles.{name}.lora_path = {address}: over http:// anybody on the way can change it; use https://, or "
                "say with sha256: what it must be.",
                field=f"roles.{name}.lora_path",
                value=address,
            )
        files = self.cached(address)
        if files is not None:
            _check_expected(name, role.sha256, files)
        return Adapter(name, files, address, role.sha256, residence(role))


def residence(role: Role) -> Residence:
    """Where and when, as the keeper reads it."""
    tiers: Mapping[Location, Tier] = {
        Location.VRAM: "vram", Location.RAM: "ram", Location.DISK: "disk", Location.REMOTE: "remote",
    }  # fmt: skip
    cold = ColdPolicy(
        budget=role.cold_budget_ms / 1000,
        do=role.when_cold.do,
        longest=role.cold_max_ms / 1000,
        fallback=role.when_cold.role,
    )
    return Residence(
        rest=tiers[role.location],
        at_start=role.location is Location.VRAM or role.warm is Warm.START,
        foreseen=role.warm is not Warm.DEMAND,
        pin=role.pin,
        unload_after=None if role.location is Location.VRAM else role.unload_after,
        duty=Duty(role.warm_at, role.warm_until) if role.warm_at else None,
        cold=cold,
    )


def located(lora_path: str, folder: Path, *, field: str) -> Path:
    """The local folder a path stands for. Raises InvalidAdapter for an unknown shipped name."""
    if lora_path.startswith("tiny:"):
        name = lora_path.removeprefix("tiny:")
        if name not in tiny.VOICES:
            raise InvalidAdapter(
                f"{field} = {lora_path}: shipped adapters are {', '.join(f'tiny:{one}' for one in tiny.VOICES)}.",
                field=field,
                value=lora_path,
            )
        return tiny.FOLDER / name
    return (folder / Path(lora_path).expanduser()).resolve()


def stamp_of(folder: Path) -> Stamp:
    """Size and time of the two files: what changed has another stamp. Empty for a folder that is not there."""
    try:
        states = [(folder / name).stat() for name in (CONFIG, WEIGHTS)]
    except OSError:
        return ()
    return tuple((state.st_size, state.st_mtime_ns) for state in states)


def _check_expected(name: str, expected: str | None, files: AdapterFiles) -> None:
    if expected is None or expected == files.sha256:
        return
    with (files.folder / WEIGHTS).open("rb") as weights:
        found = file_digest(weights, "sha256").hexdigest()
    if found != expected:
        raise InvalidAdapter(
            f"roles.{name}.sha256 names other files: the weights in {files.folder} have {found}. Correct sha256, or "
            "find out who changed them.",
            field=f"roles.{name}.sha256",
            value=expected,
        )
