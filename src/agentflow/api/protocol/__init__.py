"""The LangGraph Server protocol, as its real clients speak it."""

from agentflow.api.protocol.door import routers

__all__ = ["routers"]
