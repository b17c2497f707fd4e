"""The only reader of the process environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

OVERRIDES = {
    "DATABASE_URL": ("postgres", "url"),
    "AGENTFLOW_ENGINE": ("model", "engine"),
    "AGENTFLOW_ENGINE_URL": ("model", "url"),
    "AGENTFLOW_ENGINE_API_KEY": ("model", "api_key"),
    "AGENTFLOW_EMBEDDER_API_KEY": ("embedder", "api_key"),
    "AGENTFLOW_API_KEY": ("server", "api_key"),
    "AGENTFLOW_HOST": ("server", "host"),
    "AGENTFLOW_PORT": ("server", "port"),
}


@dataclass(frozen=True)
class Environment:
    """What agentflow takes from outside its file.

    `variables` resolves `env:NAME` references; `fault` names a point at which the process
    kills itself (crash tests only); `cache` holds what can be built again.
    """

    variables: Mapping[str, str]
    config: Path
    cache: Path
    fault: str | None


def read() -> Environment:
    """The environment of this process, once."""
    variables = dict(os.environ)
    cache = variables.get("AGENTFLOW_CACHE") or platformdirs.user_cache_dir("agentflow")
    return Environment(
        variables=variables,
        config=Path(variables.get("AGENTFLOW_CONFIG") or "agentflow.yaml"),
        cache=Path(cache),
        fault=variables.get("AGENTFLOW_FAULT"),
    )
