"""Settings to running services: the only place that picks engines, embedders and homes.

Names are imported when they are asked for: most commands need a `Place` only, and services take a second to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentflow.wiring.background import running
    from agentflow.wiring.findings import adapter_findings, routing_findings
    from agentflow.wiring.place import Place, Progress, silent
    from agentflow.wiring.protocol import Served
    from agentflow.wiring.services import Services, routing_only
    from agentflow.wiring.studio import Studio

__all__ = [
    "Place",
    "Progress",
    "Served",
    "Services",
    "Studio",
    "adapter_findings",
    "routing_findings",
    "routing_only",
    "running",
    "silent",
]
HOME = {
    "running": "background",
    "adapter_findings": "findings",
    "routing_findings": "findings",
    "Place": "place",
    "Progress": "place",
    "silent": "place",
    "Served": "protocol",
    "Services": "services",
    "routing_only": "services",
    "Studio": "studio",
}


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOME[name]}"), name)
