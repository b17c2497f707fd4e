"""What vLLM finds wrong with an adapter's files."""

import json
from pathlib import Path

from agentflow.adapters import read_header
from agentflow.errors import InvalidAdapter
from agentflow.fakes.vllm.refusal import Refusal
from agentflow.fakes.vllm.slots import WEIGHTS


def read(name: str, folder: Path, max_rank: int) -> None:
    """The checks of vLLM itself, no more: wrong shapes and zeros pass (vllm#34186, #55193)."""
    if not (folder / "adapter_config.json").is_file():
        raise Refusal(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for <path>")
    try:
        config = json.loads((folder / "adapter_config.json").read_bytes())
    except ValueError as error:
        raise Refusal(500, "InternalServerError", f"Expecting property name: {error}") from error
    if config.get("r", 0) > max_rank:
        message = f"LoRA rank {config['r']} is greater than max_lora_rank {max_rank}."
        raise Refusal(500, "InternalServerError", message)
    if config.get("use_dora"):
        raise Refusal(500, "InternalServerError", "vLLM does not yet support DoRA.")
    _read_weights(folder)


def _read_weights(folder: Path) -> None:
    path = folder / WEIGHTS
    if not path.is_file():
        raise Refusal(500, "InternalServerError", f"{folder} doesn't contain tensors")
    try:
        with path.open("rb") as file:
            header = read_header(file, path.stat().st_size)
    except InvalidAdapter as error:
        raise Refusal(500, "InternalServerError", "Error while deserializing header") from error
    modules = [tensor.name for tensor in header.tensors if "_proj.lora_" not in tensor.name]
    if modules:
        message = (
            f"While loading {folder}, expected target modules in {{'q_proj', ...}} but received {modules}"
        )
        raise Refusal(500, "InternalServerError", message)
