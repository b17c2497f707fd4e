"""The header of a safetensors file: read without touching the data, and not believed until it adds up."""

import json
import math
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from agentflow.adapters.refusal import refuse

WEIGHTS = "adapter_model.safetensors"
HEADER_LIMIT = 100_000_000
"""Bytes; the safetensors format's own limit of a header."""

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors header. `start` and `end` count bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """The tensors in file order, and where their data begins (bytes from the start of the file)."""

    tensors: tuple[Tensor, ...]
    data_start: int

    @property
    def octets(self) -> int:
        """The size of the whole file."""
        return self.data_start + sum(tensor.end - tensor.start for tensor in self.tensors)


def read_header(file: BinaryIO, size: int) -> Header:
    """Parse the header of a safetensors file of `size` bytes and check it against that size.

    Layout: 8 bytes length (little endian), that many bytes of JSON, data without gaps or overlaps.
    Raises InvalidAdapter.
    """
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > size - 8:
        refuse(WEIGHTS, size, "is truncated", "Copy or download the file again.")
    if length > HEADER_LIMIT:
        refuse(WEIGHTS, length, f"has a header of more than {HEADER_LIMIT} bytes", "It is no adapter file.")
    try:
        entries = json.loads(file.read(length), object_pairs_hook=_unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        refuse(WEIGHTS, length, f"has a header that is not JSON ({error})", "Copy the file again.", error)
    if not isinstance(entries, dict):
        refuse(WEIGHTS, length, "has a header that is not a JSON object", "Copy the file again.")
    tensors = [_tensor(name, entry) for name, entry in entries.items() if name != "__metadata__"]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    _check_layout(tensors, size - 8 - length)
    return Header(tuple(tensors), 8 + length)


def _tensor(name: str, entry: object) -> Tensor:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        refuse(name, entry, "is not described by dtype, shape and data_offsets", "Copy the file again.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        refuse(name, dtype, "has an unknown dtype", "Save the adapter as bfloat16, float16 or float32.")
    if not _are_sizes(shape, at_most=8):
        refuse(name, shape, "has an impossible shape", "Copy the file again.")
    if not _are_sizes(offsets, at_most=2) or len(offsets) != 2:
        refuse(name, offsets, "has impossible offsets", "Copy the file again.")
    start, end = offsets
    if math.prod(shape) * DTYPE_BYTES[dtype] != end - start:
        refuse(name, offsets, f"does not hold {shape} values of {dtype}", "Copy the file again.")
    return Tensor(name, dtype, tuple(shape), start, end)


def _are_sizes(values: object, *, at_most: int) -> bool:
    if not isinstance(values, list) or len(values) > at_most:
        return False
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _check_layout(tensors: list[Tensor], data_bytes: int) -> None:
    position = 0
    for tensor in tensors:
        if tensor.start != position:
            refuse(
                tensor.name, tensor.start, "overlaps another tensor or leaves a gap", "Copy the file again."
            )
        position = tensor.end
    if position != data_bytes:
        refuse(
            WEIGHTS, data_bytes, f"holds not the {position} bytes of data its header names", "Copy it again."
        )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name appears twice")
    return entries


def no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
