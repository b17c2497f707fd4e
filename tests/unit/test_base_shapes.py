"""What a base model's configuration says of the shapes that its adapters must have."""

import json
from pathlib import Path

import pytest

from agentflow.adapters import BaseShape
from agentflow.errors import ConfigError

QWEN = {
    "model_type": "qwen3", "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "num_hidden_layers": 2,
}  # fmt: skip


def _base(folder: Path, config: object) -> BaseShape | None:
    (folder / "config.json").write_text(json.dumps(config))
    return BaseShape.read(folder)


@pytest.mark.parametrize(
    ("module", "features"),
    [
        ("q_proj", (128, 128)), ("k_proj", (128, 64)), ("v_proj", (128, 64)), ("o_proj", (128, 128)),
    ],
)  # fmt: skip
def test_attention_shapes_come_from_the_base_configuration(tmp_path, module, features):
    assert _base(tmp_path, QWEN).features(f"model.layers.1.self_attn.{module}") == features


def test_feed_forward_shapes_come_from_the_base_configuration(tmp_path):
    base = _base(tmp_path, QWEN)
    found = {
        name: base.features(f"model.layers.0.mlp.{name}") for name in ("gate_proj", "up_proj", "down_proj")
    }
    assert found == {"gate_proj": (128, 256), "up_proj": (128, 256), "down_proj": (256, 128)}


def test_experts_have_shapes_of_their_own(tmp_path):
    base = _base(tmp_path, QWEN | {"model_type": "qwen3_moe", "num_experts": 4, "moe_intermediate_size": 96})
    assert base.features("model.layers.0.mlp.experts.3.up_proj") == (128, 96)
    assert base.features("model.layers.0.mlp.experts.4.up_proj") is None
    assert base.features("model.layers.0.mlp.up_proj") is None


def test_head_size_and_value_heads_have_defaults(tmp_path):
    config = {key: value for key, value in QWEN.items() if key not in ("head_dim", "num_key_value_heads")}
    assert _base(tmp_path, config | {"model_type": "llama"}).modules["self_attn.v_proj"] == (128, 128)


def test_an_unknown_architecture_has_unknown_shapes(tmp_path):
    assert _base(tmp_path, QWEN | {"model_type": "phi3"}) is None


@pytest.mark.parametrize(
    "config", [[], {"model_type": "qwen3"}, QWEN | {"num_attention_heads": 0, "head_dim": 0}]
)
def test_a_contradictory_base_configuration_is_a_configuration_error(tmp_path, config):
    with pytest.raises(ConfigError, match="cannot be used"):
        _base(tmp_path, config)


def test_a_base_without_configuration_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError) as caught:
        BaseShape.read(tmp_path)
    assert (caught.value.field, caught.value.value) == ("model.base", str(tmp_path))
