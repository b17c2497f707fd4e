"""Small value types of the file: durations, sizes, places, secrets."""

import ipaddress
import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"^\s*\d+(?:\.\d+)?\s*$")
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*$", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Section(BaseModel):
    """A block of agentflow.yaml: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=False)


def seconds(value: Any) -> Any:
    """Seconds of "10m", "500ms", "2h" or a plain number."""
    if not isinstance(value, str):
        return value
    match = _DURATION.match(value)
    if not match:
        raise ValueError(f"{value!r} is not a duration; write a number with ms, s, m, h or d, such as 10m")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def milliseconds(value: Any) -> Any:
    """Milliseconds of a plain number; of "1.5s" and "500ms" too."""
    if not isinstance(value, str) or _NUMBER.match(value):
        return value
    return seconds(value) * 1000


def octets(value: Any) -> Any:
    """Bytes of "16GB", "512MiB" or a plain number (GB = 10^9, GiB = 2^30)."""
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value)
    if not match:
        raise ValueError(f"{value!r} is not a size; write a number with kB, MB, GB or GiB, such as 16GB")
    unit = (match[2] or "").lower()
    return int(float(match[1]) * (1024 if unit.endswith("i") else 1000) ** _POWERS[unit[:1]])


def is_loopback(host: str) -> bool:
    """True for addresses that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def lowered(value: Any) -> Any:
    """Names of places are read in any case: VRAM, vram, Vram."""
    return value.lower() if isinstance(value, str) else value


class Location(StrEnum):
    """Where an adapter rests when it is idle."""

    VRAM = "vram"
    RAM = "ram"
    DISK = "disk"
    REMOTE = "remote"


class Warm(StrEnum):
    """Who activates an adapter: the start, a prediction, the demand itself or a schedule."""

    START = "start"
    PREDICTED = "predicted"
    DEMAND = "demand"
    SCHEDULE = "schedule"


Seconds = Annotated[float, BeforeValidator(seconds, json_schema_input_type=float | str)]
Milliseconds = Annotated[float, BeforeValidator(milliseconds, json_schema_input_type=float | str)]
Octets = Annotated[int, BeforeValidator(octets, json_schema_input_type=int | str)]
Place = Annotated[Location, BeforeValidator(lowered, json_schema_input_type=str)]
WarmBy = Annotated[Warm, BeforeValidator(lowered, json_schema_input_type=str)]
