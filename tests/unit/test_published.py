"""What is shipped beside the code agrees with it."""

import json
from importlib import resources
from pathlib import Path

import jsonschema
import yaml

from agentflow.settings import Environment, inspect
from agentflow.settings.document import parse
from agentflow.settings.published import schema_text

SHIPPED = resources.files("agentflow.settings")


def test_the_shipped_schema_is_the_settings_own() -> None:
    assert (SHIPPED / "agentflow.schema.json").read_text() == schema_text(), "run `make schema`"


def test_the_example_satisfies_schema_and_settings() -> None:
    text = (SHIPPED / "agentflow.example.yaml").read_text()
    jsonschema.validate(yaml.safe_load(text), json.loads(schema_text()))
    environment = Environment({}, Path("agentflow.yaml"), Path("cache"), None)
    _, findings = inspect(parse(text), environment, folder=Path("/srv"))
    assert findings == []


def test_the_schema_reads_places_in_any_case() -> None:
    role = {"roles": {"artist": {"lora_path": "/mnt/artist", "location": "VRAM"}}}
    jsonschema.validate(role, json.loads(schema_text()))
