"""agentflow.yaml and the environment as frozen, validated values; the sole reader of both."""

from agentflow.settings.collections import Collection
from agentflow.settings.document import Document, Finding
from agentflow.settings.environment import Environment
from agentflow.settings.environment import read as read_environment
from agentflow.settings.reading import extra_role, inspect, load
from agentflow.settings.schema import (
    EmbedderSettings,
    Generation,
    Model,
    Role,
    Settings,
    Timeouts,
)

__all__ = [
    "Collection",
    "Document",
    "EmbedderSettings",
    "Environment",
    "Finding",
    "Generation",
    "Model",
    "Role",
    "Settings",
    "Timeouts",
    "extra_role",
    "inspect",
    "load",
    "read_environment",
]
