"""One careful change of agentflow.yaml: a collection's block, and nothing else of the file."""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from agentflow.errors import ConfigError
from agentflow.settings.document import parse


def with_collection(text: str, name: str, block: dict[str, Any]) -> str:
    """The file's text with this block for the collection; comments and order stay.

    Raises ConfigError, with what to write by hand, where that cannot be done without touching more.
    """
    wanted = yaml.safe_dump(block, default_flow_style=True, sort_keys=False, width=10**6).strip()
    changed = _replaced(text, name, wanted)
    expected = {**parse(text).data}
    expected["collections"] = {**(expected.get("collections") or {}), name: block}
    if changed is None or _data(changed) != expected:
        raise ConfigError(
            f"The file is written in a way that cannot be changed safely; write it by hand under collections: "
            f"{name}: {wanted}",
            field=f"collections.{name}",
        )
    return changed


def write(file: Path, text: str) -> None:
    """Replace the file whole, with its permissions."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    shutil.copymode(file, beside)
    beside.replace(file)


def _data(text: str) -> dict[str, Any] | None:
    try:
        return parse(text).data
    except ConfigError:
        return None


def _replaced(text: str, name: str, wanted: str) -> str | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    collections = _value(root, "collections")
    if collections is None:
        return f"{text.rstrip()}\n\ncollections:\n  {name}: {wanted}\n"
    if not isinstance(collections, yaml.MappingNode):
        return None
    block = _value(collections, name)
    if block is None:
        start = collections.start_mark
        inside = collections.flow_style or not collections.value
        line = f"{name}: {wanted}\n{' ' * start.column}"
        return None if inside else text[: start.index] + line + text[start.index :]
    start, end = block.start_mark.index, _end(block)
    return None if "#" in text[start:end] else text[:start] + wanted + text[end:]


def _end(node: yaml.Node) -> int:
    """Where a block's last word ends; its own mark is beyond the comments that follow."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)
