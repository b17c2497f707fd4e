"""From file and environment to settings, or to a list of every mistake in them."""

import difflib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentflow.errors import ConfigError
from agentflow.settings.document import Document, Finding, Path_, dotted, read
from agentflow.settings.environment import OVERRIDES, Environment
from agentflow.settings.schema import Role, Settings
from agentflow.settings.values import Location

SECRETS = (
    ("postgres", "url"),
    ("model", "api_key"),
    ("embedder", "api_key"),
    ("server", "api_key"),
    ("access", "tokens", "public_key"),
    ("webhooks", "secret"),
)


def load(file: Path, environment: Environment) -> Settings:
    """The settings of a file. Raises ConfigError that lists every mistake with its line."""
    settings, findings = inspect(read(file), environment, folder=file.resolve().parent)
    mistakes = [finding for finding in findings if finding.serious]
    if settings is None or mistakes:
        listing = "\n".join(f"  {finding}" for finding in mistakes)
        raise ConfigError(f"{file} cannot be used:\n{listing}", field="config", value=str(file))
    return settings


def inspect(
    document: Document, environment: Environment, *, folder: Path
) -> tuple[Settings | None, list[Finding]]:
    """Settings (None if they cannot be built) and all findings, in the file's order.

    Relative paths in the file are taken from `folder`.
    """
    findings = list(document.repeated)
    data = _with_environment(document, environment, folder, findings)
    settings = None
    try:
        settings = _anchored(Settings.model_validate(data), folder)
    except ValidationError as error:
        findings += [_explained(details, document) for details in error.errors()]
    else:
        findings += _cross_checked(settings, document)
    return settings, sorted(findings, key=lambda finding: finding.line)


def extra_role(written: str, folder: Path) -> tuple[str, Role]:
    """A role from the command line: NAME=ADAPTER or NAME=ADAPTER@TIER; a relative path starts at `folder`.

    Raises ConfigError.
    """
    name, equals, place = written.partition("=")
    path, at, tier = place.rpartition("@")
    if not at or tier.lower() not in set(Location):
        path, tier = place, Location.RAM
    if not equals or not path:
        raise ConfigError(
            f"--role {written}: write NAME=ADAPTER or NAME=ADAPTER@TIER, such as critic=./critic@RAM.",
            field="role",
            value=written,
        )
    near = "://" not in path and not path.startswith("tiny:")
    data = {"lora_path": str(folder / Path(path).expanduser()) if near else path, "location": tier}
    try:
        found = Settings.model_validate({"roles": {name: data}}).roles[name]
    except ValidationError as error:
        raise ConfigError(
            f"--role {written}: {error.errors()[0]['msg']}.", field="role", value=written
        ) from error
    return name, found


def _with_environment(
    document: Document, environment: Environment, folder: Path, findings: list[Finding]
) -> dict[str, Any]:
    data = deepcopy(dict(document.data))
    for name, (section, key) in OVERRIDES.items():
        block = data.setdefault(section, {})
        if environment.variables.get(name) and isinstance(block, dict):
            block[key] = environment.variables[name]
    for *path, key in _secrets(data):
        block, written = _block(data, path), _block(document.data, path)
        if not isinstance(block.get(key), str):
            continue
        in_file = written.get(key) == block[key]
        resolved = _secret(block[key], environment, folder)
        if resolved is None or (in_file and key in ("api_key", "secret") and resolved == block[key]):
            findings.append(_bad_secret((*path, key), block[key], document))
        block[key] = resolved
    return data


def _secrets(data: dict[str, Any]) -> list[tuple[str, ...]]:
    """Where secrets may stand."""
    named = [("collections", str(name), "options", "api_key") for name in _block(data, ["collections"])]
    return [*SECRETS, *named]


def _block(data: Any, path: Sequence[str]) -> dict[str, Any]:
    """What stands there; empty where nothing does."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _secret(value: str, environment: Environment, folder: Path) -> str | None:
    """The secret that `env:NAME` or `file:PATH` stands for; None if it is not there; else the value itself."""
    if value.startswith("env:"):
        return environment.variables.get(value.removeprefix("env:"))
    if value.startswith("file:"):
        path = folder / value.removeprefix("file:")
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None
    return value


def _bad_secret(path: Path_, value: str, document: Document) -> Finding:
    if value.startswith(("env:", "file:")):
        return Finding(document.line(path), dotted(path), value, "that variable or file is not there; set it")
    hint = "a secret does not belong into the file; write env:NAME or file:PATH"
    return Finding(document.line(path), dotted(path), "***", hint)


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Relative folders start where the file lies."""
    postgres = settings.postgres.model_copy(update={"data": folder / settings.postgres.data})
    model = settings.model
    disk = model.disk.model_copy(update={"path": folder / model.disk.path.expanduser()})
    roots = tuple(folder / root.expanduser() for root in model.roots)
    changed = model.model_copy(update={"disk": disk, "roots": roots})
    return settings.model_copy(update={"postgres": postgres, "model": changed})


def _explained(details: ErrorDetails, document: Document) -> Finding:
    path = tuple(part for part in details["loc"] if part != "[key]")
    message = details["msg"].removeprefix("Value error, ")
    value = _shown(details.get("input"), path)
    if details["type"] == "extra_forbidden":
        message = f"unknown key{_did_you_mean(path)}"
        value = ""
    elif details["type"] == "missing":
        value = ""
    elif details["type"] == "string_pattern_mismatch" and "[key]" in details["loc"]:
        message = "a name has letters, digits, _ and - only, at most 63, and starts with a letter or digit"
    return Finding(document.line(path), dotted(path), value, message)


def _shown(value: Any, path: Path_) -> str:
    if path in SECRETS or path[-1:] == ("api_key",):
        return "***"
    if isinstance(value, dict | list):
        return ""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _did_you_mean(path: Path_) -> str:
    known = list(_keys_at(path[:-1]))
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known here: {', '.join(known)}"


def _keys_at(path: Path_) -> Iterator[str]:
    model: type[BaseModel] | None = Settings
    for part in path:
        if model is None:
            return
        model = _inner(model, part)
    if model is not None:
        yield from model.model_fields


def _inner(model: type[BaseModel], part: str | int) -> type[BaseModel] | None:
    """The model behind a key; for dict[str, Model] blocks the entry's name is skipped by standing still."""
    field = model.model_fields.get(str(part))
    if field is None:
        return model
    for candidate in _models_in(field.annotation):
        return candidate
    return None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _cross_checked(settings: Settings, document: Document) -> Iterator[Finding]:
    for name, role in settings.roles.items():
        yield from _collections_known(settings, document, name)
        if not role.description and not role.examples and not role.intents:
            yield Finding(
                document.line(("roles", name)),
                f"roles.{name}",
                "",
                "has neither description nor examples, so only its name tells what it is for; add examples",
                serious=False,
            )
    yield from _router_roles(settings, document)
    yield from _fallbacks_known(settings, document)
    yield from _pins_fit(settings, document)


def _fallbacks_known(settings: Settings, document: Document) -> Iterator[Finding]:
    for name, role in settings.roles.items():
        wanted = role.when_cold.role
        if wanted is None or (wanted in settings.roles and wanted != name):
            continue
        path: Path_ = ("roles", name, "when_cold")
        known = ", ".join(one for one in settings.roles if one != name) or "none"
        yield Finding(document.line(path), dotted(path), wanted, f"no such other role; known: {known}")


def _pins_fit(settings: Settings, document: Document) -> Iterator[Finding]:
    """An engine whose every slot is pinned dies of the next adapter, so one slot stays free for the others."""
    speaking = [name for name, role in settings.roles.items() if role.lora_path is not None]
    pinned = [name for name in speaking if settings.roles[name].pin == "vram"]
    slots = settings.model.slots
    room = slots if len(pinned) == len(speaking) else slots - 1
    if len(pinned) > room:
        path: Path_ = ("roles", pinned[-1], "pin")
        message = (
            f"{len(pinned)} roles are pinned in VRAM ({', '.join(pinned)}), but model.slots = {slots} has room "
            f"for {room}: unpin some or raise model.slots"
        )
        yield Finding(document.line(path), dotted(path), "vram", message)


def _collections_known(settings: Settings, document: Document, name: str) -> Iterator[Finding]:
    role = settings.roles[name]
    known = {"conversations", *settings.collections}
    for key, wanted in (("reads", role.reads), ("writes", role.writes)):
        for collection in wanted:
            if collection not in known:
                close = difflib.get_close_matches(collection, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else "; add it under collections:"
                path: Path_ = ("roles", name, key)
                yield Finding(document.line(path), dotted(path), collection, f"no such collection{hint}")


def _router_roles(settings: Settings, document: Document) -> Iterator[Finding]:
    for key in ("on_unknown", "on_ambiguous", "on_cold"):
        wanted = getattr(getattr(settings.router, key), "role", None)
        if wanted is not None and wanted not in settings.roles:
            path: Path_ = ("router", key)
            known = ", ".join(settings.roles) or "none"
            yield Finding(document.line(path), dotted(path), wanted, f"no such role; known roles: {known}")
