"""Adapters of a few hundred bytes, as a source would send them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from agentflow.adapters import CONFIG, WEIGHTS

KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora"


def adapter_files(fill: float = 1.0, *, size: int = 8) -> dict[str, bytes]:
    """File names and contents of a valid adapter; another fill is another adapter."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    weights = {
        f"{KEY}_A.weight": np.ones((2, size), "f4"),
        f"{KEY}_B.weight": np.full((size, 2), fill, "f4"),
    }
    return {CONFIG: json.dumps(config).encode(), WEIGHTS: save(weights)}


@pytest.fixture
def made() -> Callable[..., dict[str, bytes]]:
    return adapter_files


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes an adapter and returns its folder."""

    def write(name: str = "adapter", fill: float = 1.0, *, size: int = 8) -> Path:
        home = tmp_path / name
        home.mkdir()
        for file, content in adapter_files(fill, size=size).items():
            (home / file).write_bytes(content)
        return home

    return write
