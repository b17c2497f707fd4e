"""What `agentflow doctor` looks at: what is reachable, which versions, what would fail and what to do about it."""

from agentflow.wiring.checkup.looks import checkup
from agentflow.wiring.checkup.row import Row

__all__ = ["Row", "checkup"]
