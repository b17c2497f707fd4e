"""What a model server finds wrong with an adapter's files: less than we do."""

import json
from pathlib import Path

from agentflow.adapters import CONFIG, WEIGHTS, read_header
from agentflow.errors import InvalidAdapter


def fault_of(folder: Path) -> str | None:
    """None for a folder that a server would take."""
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        return f"No adapter found for {folder}"
    try:
        json.loads((folder / CONFIG).read_bytes())
    except ValueError as error:
        return f"adapter_config.json: {error}"
    return fault_of_weights(folder / WEIGHTS)


def fault_of_weights(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            read_header(file, path.stat().st_size)
    except InvalidAdapter:
        return "Error while deserializing header"
    return None
