"""Vectors in six bits a dimension: 288 bytes for 384 of them.

A vector is rotated first, always by the same rotation: signs, then Hartley's transform, which exists in any dimension
and undoes itself. Whatever the embedder, its numbers are then spread nearly normally, and 64 even steps lose a
thousandth of them (Max, "Quantizing for minimum distortion", 1960): a five-hundredth of a cosine. Cosines are taken as
they lie, since a rotation changes none.

A code begins with all upper four bits: the first half of the dimensions in the upper half of the bytes, the second in
the lower. Then come the other two bits, a quarter of the dimensions each.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

# Never changed: memories are stored so.
_STEP, _MIDDLE = 0.1041, 31.5
_CHUNK = 1024
"""Codes that are unpacked at once: their numbers stay in the processor's cache."""


def coded(vectors: Vectors) -> list[bytes]:
    """Vectors [n, dim] of any length but 0."""
    turned = rotated(vectors)
    turned *= np.sqrt(turned.shape[1]) / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-9)
    steps = np.clip(np.rint(turned / _STEP + _MIDDLE), 0, 63).astype(np.uint8)
    codes = np.concatenate([_packed(steps >> 2, 4), _packed(steps & 3, 2)], axis=1)
    return [row.tobytes() for row in codes]


def decoded(codes: Sequence[bytes], dim: int) -> Vectors:
    """Unit vectors [n, dim] as they were before `coded`, nearly."""
    units = np.concatenate([np.empty((0, dim), np.float32), *_chunks(b"".join(codes), len(codes), dim)])
    return _signs(dim) * _hartley(units)


def cosines(codes: bytes, number: int, vector: Vectors) -> Vectors:
    """Between a vector and each of `number` codes, one after the other."""
    asked = rotated(vector[None])[0]
    asked /= max(float(np.linalg.norm(asked)), 1e-9)
    chunks = (unit @ asked for unit in _chunks(codes, number, len(vector)))
    return np.concatenate([np.empty(0, np.float32), *chunks])


def rotated(vectors: Vectors) -> Vectors:
    """Vectors [n, dim] as codes have them."""
    return _hartley(vectors * _signs(vectors.shape[1]))


def _packed(numbers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Rows of numbers in equal parts, each part in its bits of the bytes, the first uppermost; filled up with zeros."""
    parts = 8 // bits
    full = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % parts))).reshape(len(numbers), parts, -1)
    octets: NDArray[np.uint8] = np.bitwise_or.reduce(full << _shifts(bits)[:, None], axis=1)
    return octets


def _unpacked(octets: NDArray[np.uint8], bits: int, dim: int) -> NDArray[np.uint8]:
    parts = [octets >> shift & (1 << bits) - 1 for shift in _shifts(bits)]
    return np.concatenate(parts, axis=1)[:, :dim]


def _shifts(bits: int) -> NDArray[np.uint8]:
    return np.arange(8 - bits, -1, -bits, dtype=np.uint8)


def _chunks(codes: bytes, number: int, dim: int) -> Iterator[Vectors]:
    octets = np.frombuffer(codes, np.uint8).reshape(number, -(-dim // 2) - (-dim // 4))
    for start in range(0, number, _CHUNK):
        yield _unit(octets[start : start + _CHUNK], dim)


def _unit(octets: NDArray[np.uint8], dim: int) -> Vectors:
    border = -(-dim // 2)
    upper, lower = _unpacked(octets[:, :border], 4, dim), _unpacked(octets[:, border:], 2, dim)
    values = (upper << 2 | lower).astype(np.float32) - np.float32(_MIDDLE)
    unit: Vectors = values / np.sqrt(np.einsum("nd,nd->n", values, values))[:, None]
    return unit


def _hartley(vectors: Vectors) -> Vectors:
    found = np.fft.fft(vectors, axis=1)
    turned: Vectors = ((found.real - found.imag) / np.sqrt(vectors.shape[1])).astype(np.float32)
    return turned


@cache
def _signs(dim: int) -> Vectors:
    bits = np.unpackbits(np.frombuffer(hashlib.shake_128(b"agentflow").digest(-(-dim // 8)), np.uint8))
    return 1 - 2 * bits[:dim].astype(np.float32)
