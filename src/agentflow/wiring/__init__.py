"""Settings to running services: the only place that picks engines, embedders and homes."""

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
