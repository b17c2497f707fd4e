"""Shipped profiles of base models: enough of config.json and of three adapters to plan without any weights."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from agentflow.errors import ConfigError


@dataclass(frozen=True)
class Profile:
    """A base model's config.json, three adapters as they are usual for it, and what to know."""

    name: str
    note: str
    config: dict[str, Any]
    adapters: tuple[dict[str, Any], ...]


def names() -> list[str]:
    """Names of the shipped profiles."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return sorted(name.removesuffix(".json") for name in files if name.endswith(".json"))


def profile(name: str) -> Profile:
    """By its name, or by the hub id of its model, in any case. Raises ConfigError."""
    wanted = name.rpartition("/")[2].lower()
    if wanted not in names():
        raise ConfigError(
            f"profile: there is none named {name!r}. Shipped are {', '.join(names())}; for another base put its "
            "config.json into a folder and name that as model.base.",
            field="profile",
            value=name,
        )
    found = json.loads((resources.files(__name__) / f"{wanted}.json").read_text("utf-8"))
    return Profile(found["name"], found["note"], found["config"], tuple(found["adapters"]))


def known(model: str) -> Profile | None:
    """The profile of a hub id, if one is shipped."""
    return profile(model) if model.rpartition("/")[2].lower() in names() else None
