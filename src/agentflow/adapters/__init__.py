"""LoRA adapter folders, read and judged before any engine sees them.

Engines accept bad files silently or die of them: vLLM loads a wrong hidden size and all-zero
weights with a 200 (vllm#34186, #55193). So the small JSON configuration and the *header* of the
safetensors file are checked here against the base model's shapes. Nothing is ever unpickled.
"""

from agentflow.adapters.config import CONFIG
from agentflow.adapters.folder import AdapterFiles, check, digest, identity, inspect
from agentflow.adapters.header import WEIGHTS, Header, Tensor, read_header
from agentflow.adapters.shapes import BaseShape

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "AdapterFiles",
    "BaseShape",
    "Header",
    "Tensor",
    "check",
    "digest",
    "identity",
    "inspect",
    "read_header",
]
