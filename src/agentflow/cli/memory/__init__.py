"""agentflow memory: each module adds its commands to the group, in the order in which --help shows them."""

from agentflow.cli.memory import look  # isort: skip
from agentflow.cli.memory import change  # isort: skip
from agentflow.cli.memory import documents  # isort: skip
from agentflow.cli.memory import travel  # isort: skip
from agentflow.cli.memory import places  # isort: skip
from agentflow.cli.memory.asking import memory_app

__all__ = ["change", "documents", "look", "memory_app", "places", "travel"]
