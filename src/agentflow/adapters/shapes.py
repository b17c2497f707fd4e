"""Which linear modules a base model has, and their sizes: what an adapter must fit."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.errors import ConfigError

_KNOWN_TYPES = {"llama", "mistral", "qwen2", "qwen3", "qwen3_moe"}
_LAYER = re.compile(r"(?:model\.)?layers\.(?P<layer>\d{1,5})\.(?P<inner>.+)")
_EXPERT = re.compile(r"mlp\.experts\.(?P<expert>\d{1,5})\.(?P<leaf>\w+)")


@dataclass(frozen=True)
class BaseShape:
    """The linear modules of a base model: `modules` maps a name within a layer to (in, out) features."""

    layers: int
    modules: Mapping[str, tuple[int, int]]
    experts: int = 0

    @classmethod
    def read(cls, folder: Path) -> "BaseShape | None":
        """From the folder's config.json; None for an architecture whose shapes are not known here.

        Raises ConfigError when config.json is missing or contradictory.
        """
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            return cls.of(config)
        except (OSError, ValueError, TypeError, AttributeError, KeyError, ArithmeticError) as error:
            raise ConfigError(
                f"The base model's config.json in {folder} cannot be used ({error!r}). Point model.base at a "
                "folder with config.json, tokenizer and safetensors weights, or at a hub id.",
                field="model.base",
                value=str(folder),
            ) from error

    @classmethod
    def of(cls, config: dict[str, Any]) -> "BaseShape | None":
        """From the contents of a config.json; KeyError, TypeError or ValueError where it contradicts itself."""
        return _shape_of(config) if config.get("model_type") in _KNOWN_TYPES else None

    def features(self, module: str) -> tuple[int, int] | None:
        """(in, out) of a module such as `model.layers.0.self_attn.q_proj`, or None if there is none."""
        found = _LAYER.fullmatch(module)
        if not found or int(found["layer"]) >= self.layers:
            return None
        expert = _EXPERT.fullmatch(found["inner"])
        if not expert:
            return self.modules.get(found["inner"])
        return (
            self.modules.get(f"mlp.experts.{expert['leaf']}")
            if int(expert["expert"]) < self.experts
            else None
        )


def _shape_of(config: dict[str, Any]) -> BaseShape:
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    head = int(config.get("head_dim") or hidden // heads)
    values = int(config.get("num_key_value_heads") or heads) * head
    modules = {
        "self_attn.q_proj": (hidden, heads * head),
        "self_attn.k_proj": (hidden, values),
        "self_attn.v_proj": (hidden, values),
        "self_attn.o_proj": (heads * head, hidden),
    }
    experts = int(config.get("num_experts") or 0)
    if not experts or config.get("mlp_only_layers") or int(config.get("decoder_sparse_step") or 1) > 1:
        modules |= _feed_forward("mlp.", hidden, int(config["intermediate_size"]))
    if experts:
        modules |= _feed_forward("mlp.experts.", hidden, int(config["moe_intermediate_size"]))
    return BaseShape(int(config["num_hidden_layers"]), modules, experts)


def _feed_forward(prefix: str, hidden: int, inner: int) -> dict[str, tuple[int, int]]:
    up = (hidden, inner)
    return {f"{prefix}gate_proj": up, f"{prefix}up_proj": up, f"{prefix}down_proj": (inner, hidden)}
