"""The JSON Schema of agentflow.yaml, for editors."""

import json
from typing import Any

from agentflow.settings.schema import Settings


def schema_text() -> str:
    """Generated from the settings; a test keeps the shipped file equal to it."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "agentflow.yaml",
        **Settings.model_json_schema(),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
