"""agentflow.yaml as a tree whose every key knows its line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agentflow.errors import ConfigError

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Finding:
    """One mistake: where it is (`line` counts from 1, 0 when unknown), the field, its value, and the way out."""

    line: int
    field: str
    value: str
    message: str
    serious: bool = True

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        value = f" = {self.value}" if self.value else ""
        return f"{place}{self.field}{value}: {self.message}"


@dataclass(frozen=True)
class Document:
    """The file's data, and the line of every path in it."""

    data: dict[str, Any]
    lines: dict[Path_, int]
    repeated: tuple[Finding, ...]

    def line(self, path: Path_) -> int:
        """The line of a path, or of the nearest block around it that is written in the file."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 0)


def read(file: Path) -> Document:
    """Parse the file. Raises ConfigError with line and column for what is not YAML."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no {file}. `agentflow init` writes one to start from; --config names another file.",
            field="config",
            value=str(file),
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}.", field="config", value=str(file)) from error
    return parse(text, name=str(file))


def parse(text: str, *, name: str = "agentflow.yaml") -> Document:
    """Parse YAML text. Raises ConfigError."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not YAML: {_readable(error)}", field="config", value=name) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{name} must hold keys such as `roles:`, not a {type(data).__name__}.")
    lines: dict[Path_, int] = {}
    repeated: list[Finding] = []
    if root is not None:
        _walk(root, (), lines, repeated)
    return Document(data=data, lines=lines, repeated=tuple(repeated))


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, int], repeated: list[Finding]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), lines, repeated)
        return
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        inner = (*path, str(key.value))
        line = key.start_mark.line + 1
        if inner in lines:
            first = lines[inner]
            repeated.append(
                Finding(line, dotted(inner), "", f"this key stands on line {first} already; keep one")
            )
            continue
        lines[inner] = line
        _walk(value, inner, lines, repeated)


def dotted(path: Path_) -> str:
    """roles.coder.examples[2]"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the file"


def _readable(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error)
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}."
