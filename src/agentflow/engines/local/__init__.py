"""A base model with LoRA adapters in this process: transformers and PEFT."""

from agentflow.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
