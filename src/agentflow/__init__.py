"""agentflow: one base model, many minds."""

__version__ = "0.1.0"
