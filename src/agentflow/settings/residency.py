"""Where adapters live and when they move: the tiers of `model`, and what a role says about being cold."""

from pathlib import Path
from typing import Annotated, Any, Literal

from croniter import croniter
from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from agentflow.settings.values import Octets, Seconds, Section


def _size_alone(value: Any) -> Any:
    """`ram: 4GB` is short for `ram: {max: 4GB}`."""
    return {"max": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


def _pinned(value: Any) -> Any:
    """`pin: true` pins in VRAM; names are read in any case."""
    if isinstance(value, bool):
        return "vram" if value else None
    return value.lower() if isinstance(value, str) else value


def _cron(value: Any) -> Any:
    """Five fields: minute, hour, day of month, month, day of week."""
    if isinstance(value, str) and not (len(value.split()) == 5 and croniter.is_valid(value)):
        raise ValueError(
            f"{value!r} is no cron line; write minute, hour, day, month and weekday, such as 0 8 * * 1-5"
        )
    return value


Cron = Annotated[str, BeforeValidator(_cron)]
PinTo = Annotated[
    Literal["vram", "ram", "disk"] | None,
    BeforeValidator(_pinned, json_schema_input_type=bool | Literal["vram", "ram", "disk"] | None),
]


class RamTier(Section):
    """Copies of adapters in memory, from where the engine loads them in milliseconds.

    `max` None: half of the memory file system at `path`, at most 4 GB, where the engine runs on this machine;
    0: no copies. `path` None: a folder of this configuration's own under /dev/shm.
    """

    max: Octets | None = Field(None, ge=0, description="Bytes, such as 16GB; 0: no copies in memory.")
    path: Path | None = Field(None, description="A folder on a memory file system (tmpfs).")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _size_alone(value)


class DiskTier(Section):
    """Adapters fetched from elsewhere. Local folders that roles name are no part of it and stay untouched."""

    max: Octets = Field(50 * 10**9, ge=1, description="Bytes that fetched adapters may take, such as 200GB.")
    path: Path = Field(Path(".agentflow/adapters"), description="Folder of fetched adapters.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _size_alone(value)


class Fetching(Section):
    """How adapters come from hf://, s3:// and https:// addresses."""

    parallel: int = Field(2, ge=1, le=16, description="Downloads at once.")
    limit: Octets = Field(2 * 2**30, ge=1, description="The largest adapter, in bytes.")
    within: Seconds = Field(600.0, gt=0, description="A download that takes longer is given up.")
    silence: Seconds = Field(30.0, gt=0, description="A source that sends nothing for so long hangs.")


class WhenCold(Section):
    """What a turn does when its adapter will not be ready within the role's `cold_budget_ms`.

    wait: up to `cold_max_ms`, then 503. base: the base model answers as this role; the load goes on.
    fallback: another role answers, if its adapter is ready. refuse: 503 with Retry-After. Short forms are the
    word alone, and `fallback ROLE`.
    """

    do: Literal["wait", "base", "fallback", "refuse"] = "wait"
    role: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        word, _, role = value.strip().partition(" ")
        return {"do": word, "role": role.strip()} if role else {"do": word}

    @model_validator(mode="after")
    def _role_where_needed(self) -> "WhenCold":
        if (self.do == "fallback") != bool(self.role):
            raise ValueError(
                "fallback needs a role, and only fallback has one: write `fallback ROLE`, wait, base or refuse"
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Editors accept the short forms too."""
        whole = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"type": "string", "pattern": "^(wait|base|refuse|fallback .+)$"}, whole]}
