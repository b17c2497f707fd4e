"""A double of vLLM 0.32's HTTP surface with LoRA, its quirks included. No model, no GPU.

It answers as `voices.answer` says. The quirks that a driver must survive are real ones: text answers on
success, ids that are burned, unload that frees nothing, base answers in another's voice on a full CPU
server (vllm#48421), and an engine that dies when an adapter's files are gone (500, then 503, then nothing).
"""

from agentflow.fakes.vllm.engine import Double
from agentflow.fakes.vllm.options import Options
from agentflow.fakes.vllm.server import Served, double, serve

__all__ = ["Double", "Options", "Served", "double", "serve"]
