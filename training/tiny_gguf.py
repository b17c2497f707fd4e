"""The shipped base and its adapters as GGUF, for llama.cpp. Needs the package `gguf`.

    python training/tiny_gguf.py OUT     writes OUT/base.gguf and OUT/{philosopher,coder,artist}.gguf

llama.cpp's own converters refuse the tiny tokenizer, which they have never seen.
"""

import json
import re
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.torch import load_file

from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.tiny import BASE, FOLDER, VOICES

_ARCH = "qwen3"
_MODULES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    _write_base(out / "base.gguf")
    for voice in VOICES:
        _write_adapter(FOLDER / voice, out / f"{voice}.gguf")


def _write_base(path: Path) -> None:
    config = json.loads((BASE / "config.json").read_bytes())
    writer = gguf.GGUFWriter(path, _ARCH)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _write_tokenizer(writer, config)
    for name, tensor in _tensors(BASE / "model.safetensors").items():
        writer.add_tensor(_renamed(name.removeprefix("model.").removesuffix(".weight")) + ".weight", tensor)
    _finish(writer)


def _write_tokenizer(writer: gguf.GGUFWriter, config: dict) -> None:
    told = json.loads((BASE / "tokenizer.json").read_bytes())
    special = {token["content"] for token in told["added_tokens"]}
    vocabulary = dict(told["model"]["vocab"]) | {
        token["content"]: token["id"] for token in told["added_tokens"]
    }
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in told["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((BASE / "chat_template.jinja").read_text())


def _write_adapter(folder: Path, path: Path) -> None:
    writer = gguf.GGUFWriter(path, _ARCH)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(
        gguf.Keys.Adapter.LORA_ALPHA, float(json.loads((folder / CONFIG).read_bytes())["lora_alpha"])
    )
    for name, tensor in _tensors(folder / WEIGHTS).items():
        module, side = re.fullmatch(r"base_model\.model\.model\.(.+)\.lora_([AB])\.weight", name).groups()
        writer.add_tensor(f"{_renamed(module)}.weight.lora_{side.lower()}", np.ascontiguousarray(tensor))
    _finish(writer)


def _renamed(module: str) -> str:
    found = re.fullmatch(r"layers\.(\d+)\.(.+)", module)
    if found:
        return f"blk.{found[1]}.{_MODULES[found[2]]}"
    return {"embed_tokens": "token_embd", "norm": "output_norm"}[module]


def _tensors(path: Path) -> dict[str, np.ndarray]:
    return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
