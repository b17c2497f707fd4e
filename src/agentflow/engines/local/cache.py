"""Attention caches of several rows as one: rows join and leave between steps.

Rows are aligned at their newest token: shorter ones are padded on the left, and the mask hides that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache


@dataclass
class Rows:
    """`cache`: keys and values [rows, heads, length, size] per layer. `mask`: [rows, length] of 0 and 1."""

    cache: Any
    mask: Any

    @property
    def positions(self) -> Any:
        """[rows, 1]: the position of each row's next token."""
        return self.mask.sum(dim=1, keepdim=True)

    def grow(self) -> None:
        """Make place in the mask for one more token of every row."""
        self.mask = pad(self.mask, (0, 1), value=1)


def padded(prompts: Sequence[Sequence[int]], device: Any) -> tuple[Any, Rows]:
    """Token ids [rows, longest] with zeros on the left, and the empty cache with their mask."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([[len(prompt)] for prompt in prompts], device=device)
    mask = (torch.arange(longest, device=device)[None, :] >= longest - lengths).long()
    return ids, Rows(DynamicCache(), mask)


def joined(left: Rows, right: Rows) -> Rows:
    """Both, the left's rows first."""
    length = max(left.mask.shape[1], right.mask.shape[1])
    pairs = []
    for ours, theirs in zip(left.cache.layers, right.cache.layers, strict=True):
        keys = torch.cat([_lengthened(ours.keys, length), _lengthened(theirs.keys, length)])
        values = torch.cat([_lengthened(ours.values, length), _lengthened(theirs.values, length)])
        pairs.append((keys, values))
    masks = [pad(rows.mask, (length - rows.mask.shape[1], 0)) for rows in (left, right)]
    return Rows(DynamicCache(pairs), torch.cat(masks))


def kept(rows: Rows, indices: Sequence[int]) -> Rows:
    """Only these rows, without the padding that nobody needs any more."""
    chosen = torch.tensor(indices, device=rows.mask.device)
    mask = rows.mask[chosen]
    start = int(mask.argmax(dim=1).min())
    pairs = [
        (layer.keys[chosen][:, :, start:], layer.values[chosen][:, :, start:]) for layer in rows.cache.layers
    ]
    return Rows(DynamicCache(pairs), mask[:, start:])


def _lengthened(tensor: Any, length: int) -> Any:
    return pad(tensor, (0, 0, length - tensor.shape[2], 0))
