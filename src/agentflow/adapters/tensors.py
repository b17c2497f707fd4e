"""The matrices of an adapter: pairs, ranks, targets, the base's shapes, and that they say something."""

import re
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from agentflow.adapters.config import CONFIG, mapping
from agentflow.adapters.header import DTYPE_BYTES, WEIGHTS, Header, Tensor
from agentflow.adapters.refusal import refuse
from agentflow.adapters.shapes import BaseShape

_FLOATS: dict[str, tuple[str, int, int]] = {
    "F16": ("<u2", 0x7FFF, 0x7C00),
    "BF16": ("<u2", 0x7FFF, 0x7F80),
    "F32": ("<u4", 0x7FFFFFFF, 0x7F800000),
}
"""How each is read, the bits of its magnitude, and those of its exponent."""
_LORA_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_WINDOW, _WINDOWS = 4096, 16


@dataclass(frozen=True)
class Facts:
    modules: tuple[str, ...]
    dtype: str


def check_tensors(tensors: tuple[Tensor, ...], config: dict[str, Any], base: BaseShape | None) -> Facts:
    pairs: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        found = _LORA_KEY.fullmatch(tensor.name)
        if not found:
            way = "Adapters hold base_model.model.<module>.lora_A.weight and lora_B.weight only."
            refuse(tensor.name, tensor.shape, "is not a LoRA matrix", way)
        if tensor.dtype not in _FLOATS:
            refuse(tensor.name, tensor.dtype, "is not bfloat16, float16 or float32", "Save it as bfloat16.")
        pairs.setdefault(found["module"], {})[found["side"]] = tensor
    if not pairs:
        refuse(WEIGHTS, 0, "holds no tensors", "Save the adapter with PEFT again.")
    for module, pair in pairs.items():
        _check_pair(module, pair, config)
        _check_target(module, config.get("target_modules"))
        _check_against_base(module, pair, base)
    dtypes = sorted({tensor.dtype for tensor in tensors})
    return Facts(tuple(sorted({module.rpartition(".")[2] for module in pairs})), "+".join(dtypes))


def _check_pair(module: str, pair: dict[str, Tensor], config: dict[str, Any]) -> None:
    if len(pair) != 2:
        refuse(module, sorted(pair), "has only one of lora_A and lora_B", "Save the adapter with PEFT again.")
    a, b = pair["A"].shape, pair["B"].shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        refuse(
            module, [a, b], "is not a pair of matrices [rank, in] and [out, rank]", "Save it with PEFT again."
        )
    if a[0] not in {config["r"], *mapping(config, "rank_pattern").values()}:
        refuse(
            module, a[0], f"has a rank that {CONFIG} does not name", "Use the configuration saved with it."
        )


def _check_target(module: str, targets: object) -> None:
    """Engines disagree on tensors that `target_modules` leaves out: some apply them, some do not."""
    if not isinstance(targets, list):
        return
    if not any(module == target or module.endswith(f".{target}") for target in targets):
        refuse("target_modules", targets, f"does not name {module}", "Use the configuration saved with it.")


def _check_against_base(module: str, pair: dict[str, Tensor], base: BaseShape | None) -> None:
    if base is None:
        return
    features = base.features(module)
    if features is None:
        way = "The adapter was trained on another base model: train it on model.base or change model.base."
        refuse(module, pair["A"].shape, "does not exist in the base model", way)
    found = (pair["A"].shape[1], pair["B"].shape[0])
    if found != features:
        way = "The adapter was trained on another base model: train it on model.base or change model.base."
        refuse(module, found, f"has other (in, out) sizes than the base model's {features}", way)


def check_values(file: BinaryIO, header: Header) -> None:
    """Raises InvalidAdapter for sampled values that are no numbers, and where every sampled lora_B value is
    zero: such an adapter changes nothing, its training never ran.
    """
    speaks = False
    for tensor in header.tensors:
        found = _sampled(file, header.data_start, tensor)
        if not found.finite:
            refuse(tensor.name, "nan or inf", "is among its values", "The training diverged: train it again.")
        speaks = speaks or (found.speaks and tensor.name.endswith(".lora_B.weight"))
    if not speaks:
        refuse(
            "lora_B", 0, "is zero everywhere", "The adapter was saved untrained: train it and save it again."
        )


@dataclass(frozen=True)
class _Sample:
    finite: bool
    speaks: bool


def _sampled(file: BinaryIO, data_start: int, tensor: Tensor) -> _Sample:
    """Windows all over the tensor, as bit patterns: NaN and infinity have every bit of the exponent set."""
    code, magnitude, exponent = _FLOATS[tensor.dtype]
    size, item = tensor.end - tensor.start, DTYPE_BYTES[tensor.dtype]
    step = max(_WINDOW, size // _WINDOWS // item * item)
    speaks = False
    for offset in range(0, size, step):
        file.seek(data_start + tensor.start + offset)
        block = file.read(min(_WINDOW, size - offset))
        bits = np.frombuffer(block[: len(block) // item * item], dtype=code)
        if np.any(bits & exponent == exponent):
            return _Sample(finite=False, speaks=True)
        speaks = speaks or bool(np.any(bits & magnitude))
    return _Sample(finite=True, speaks=speaks)
