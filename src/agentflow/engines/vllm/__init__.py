"""A vLLM server with LoRA modules, over HTTP."""

from agentflow.engines.vllm.driver import Vllm
from agentflow.speech.wire import Timeouts

__all__ = ["Timeouts", "Vllm"]
