"""Which adapter an address gave, remembered on disk: `ADDRESS.json`, each written by one rename."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from agentflow.egress import shown
from agentflow.shelves.disk.folders import key
from agentflow.turn import Json


@dataclass(frozen=True)
class Index:
    """The files in `folder`."""

    folder: Path

    def of(self, address: str) -> Json | None:
        """`digest`, `weights` and `sizes` of what it gave; None for what is unknown or cannot be read."""
        try:
            found: Json = json.loads((self.folder / f"{key(address)}.json").read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found.get("digest"), str) and found["digest"].isalnum() else None

    def remember(self, address: str, known: Mapping[str, object]) -> None:
        """From now on the address gave this."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{key(address)}.{uuid4().hex}.part"
        part.write_text(json.dumps({"address": shown(address), **known}))
        part.replace(self.folder / f"{key(address)}.json")
