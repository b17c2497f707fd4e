"""What agentflow shows of itself: logs, metrics, traces. None of them holds a message, a tenant or a user."""

from agentflow.telemetry.logs import configure
from agentflow.telemetry.metrics import Metrics

__all__ = ["Metrics", "configure"]
