"""Word vectors in two bits a dimension, precise enough to tell which words are near.

The levels are those of the quantiser that loses least of a normal distribution with four of them (Max, "Quantizing for
minimum distortion", 1960): 12 % of a vector, and of a cosine a few hundredths.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_BORDERS = np.array([-0.9816, 0, 0.9816], np.float32)
_LEVELS = np.array([-1.510, -0.4528, 0.4528, 1.510], np.float32)
_PER_BYTE = 4
_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)
_TABLE = _LEVELS[(np.arange(256)[:, None] >> _SHIFTS) & 3].astype(np.float32)
"""Four levels for every byte."""


def packed(vectors: Vectors) -> list[bytes]:
    """Unit vectors [n, dim], four dimensions a byte; the last byte is filled up with zeros."""
    spread = vectors * np.sqrt(vectors.shape[1])
    codes = np.digitize(spread, _BORDERS).astype(np.uint8)
    short = -codes.shape[1] % _PER_BYTE
    codes = np.pad(codes, ((0, 0), (0, short))).reshape(len(codes), -1, _PER_BYTE)
    octets = np.bitwise_or.reduce(codes << _SHIFTS, axis=2)
    return [row.tobytes() for row in octets]


def unpacked(sketches: Sequence[bytes], dim: int) -> Vectors:
    """Vectors [n, dim] whose product with a unit vector is, on average, the cosine of what was packed."""
    octets = np.frombuffer(b"".join(sketches), np.uint8).reshape(len(sketches), -(-dim // _PER_BYTE))
    levels = _TABLE[octets].reshape(len(sketches), -1)[:, :dim]
    scaled: Vectors = levels / np.square(levels).sum(axis=1, keepdims=True) * np.float32(np.sqrt(dim))
    return scaled
