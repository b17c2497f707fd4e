"""What a base model and its adapters take of a GPU's memory. Pure arithmetic from config.json.

Engines with slots (vLLM, SGLang) reserve them at the start: slots x sum over wrapped linear layers of
max_rank x (in + out) x 2 bytes, whatever is loaded later. Over several GPUs the weights and KV heads are divided
(tensor parallel); of each LoRA pair one half is divided and the other copied, unless fully sharded. Where the
number of GPUs does not divide the attention heads, layers are divided instead (pipeline parallel).
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.adapters import BaseShape
from agentflow.errors import ConfigError

HALF = 2
"""Bytes of a bfloat16 or float16 value: adapters and the KV cache."""
UTILISATION = 0.9
"""Share of a GPU that vLLM takes by default."""
RESERVE = 2 * 10**9
"""Bytes per GPU for context, graphs and activations: a round assumption, not a measurement."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank may be."""
_DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1}
_ROWS = {"o_proj", "down_proj"}
"""Layers divided by their input: there the A half is divided, elsewhere the B half."""


@dataclass(frozen=True)
class BaseModel:
    """A base model in numbers. `parameters` counts embeddings, linear layers and norms."""

    name: str
    shape: BaseShape
    heads: int
    kv_heads: int
    head: int
    parameters: int
    octets: int
    context: int

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any]) -> "BaseModel | None":
        """From a config.json; None for an architecture that is not known here. Raises ConfigError."""
        try:
            shape = BaseShape.of(dict(config))
            return None if shape is None else cls._counted(name, shape, config)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise ConfigError(
                f"The config.json of {name} contradicts itself ({error!r}).", field="model.base", value=name
            ) from error

    @classmethod
    def _counted(cls, name: str, shape: BaseShape, config: Mapping[str, Any]) -> "BaseModel":
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        vocabulary = int(config["vocab_size"]) * hidden
        layer = sum(
            features[0] * features[1] * (shape.experts if ".experts." in module else 1)
            for module, features in shape.modules.items()
        )
        small = 2 * hidden + shape.experts * hidden
        parameters = shape.layers * (layer + small) + hidden
        parameters += vocabulary * (1 if config.get("tie_word_embeddings") else 2)
        width = _DTYPES.get(str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"), HALF)
        return cls(
            name=name,
            shape=shape,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head=int(config.get("head_dim") or hidden // heads),
            parameters=parameters,
            octets=parameters * width,
            context=int(config.get("max_position_embeddings") or 4096),
        )

    def leaves(self) -> tuple[str, ...]:
        """Short names of the modules that can carry LoRA, dense ones first."""
        return tuple(dict.fromkeys(module.rpartition(".")[2] for module in self.shape.modules))

    def tensor_parallel(self, gpus: int) -> bool:
        return self.heads % gpus == 0

    def per_token(self, gpus: int = 1) -> int:
        """Bytes of KV cache per token on the fullest GPU. More GPUs than KV heads hold copies."""
        layers, heads = self.shape.layers, math.ceil(self.kv_heads / gpus)
        if not self.tensor_parallel(gpus):
            layers, heads = math.ceil(layers / gpus), self.kv_heads
        return 2 * layers * heads * self.head * HALF

    def slot(self, rank: int, modules: Collection[str], *, experts: bool = False, gpus: int = 1) -> int:
        """Bytes on the fullest GPU of one adapter slot of `rank` over the modules of these short names."""
        layers, ways = self.shape.layers, gpus
        if not self.tensor_parallel(gpus):
            layers, ways = math.ceil(layers / gpus), 1
        return layers * sum(
            _pair(rank, features, divided_input=_short(name) in _ROWS, gpus=ways)
            * (self.shape.experts if ".experts." in name else 1)
            for name, features in self.shape.modules.items()
            if _short(name) in modules and (experts or ".experts." not in name)
        )

    def adapter(self, rank: int, modules: Collection[str]) -> int:
        """Bytes of an adapter's file in bfloat16."""
        return self.slot(rank, modules)


@dataclass(frozen=True)
class OnGpus:
    """How so many GPUs would be filled, in bytes per GPU. `kv` may be negative: then nothing fits.

    `tokens` is what the KV cache holds for all conversations at once, `conversations` how many of the asked
    length that are. `divided`: by tensors or by layers.
    """

    gpus: int
    divided: str
    memory: int
    weights: int
    slots: int
    reserve: int
    kv: int
    tokens: int
    conversations: float

    @property
    def fits(self) -> bool:
        return self.conversations >= 1


def on_gpus(base: BaseModel, *, gpus: int, memory: int, slots: int, context: int) -> OnGpus:
    """`memory` bytes per GPU, of which the engine takes UTILISATION; `slots`: bytes of all slots on each."""
    usable = int(memory * UTILISATION)
    weights = math.ceil(base.octets / gpus)
    kv = usable - weights - slots - RESERVE
    tokens = max(0, kv // base.per_token(gpus))
    how = "tensors" if base.tensor_parallel(gpus) else "layers"
    return OnGpus(gpus, how, memory, weights, slots, RESERVE, kv, tokens, tokens / context)


def smallest_rank(ranks: Collection[int]) -> int:
    """The lowest --max-lora-rank that bears all of these."""
    return next((rank for rank in RANKS if rank >= max(ranks, default=1)), max(ranks, default=1))


def _pair(rank: int, features: tuple[int, int], *, divided_input: bool, gpus: int) -> int:
    inside, outside = features
    if divided_input:
        return rank * (math.ceil(inside / gpus) + outside) * HALF
    return rank * (inside + math.ceil(outside / gpus)) * HALF


def _short(module: str) -> str:
    return module.rpartition(".")[2]
