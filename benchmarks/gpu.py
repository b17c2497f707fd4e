"""What moving an adapter of real size costs, tier by tier, with the local engine on a GPU.

    python benchmarks/gpu.py [--layers 36] [--hidden 2560] [--rounds 10] [--device cuda]

A base of Qwen3's shape is made from its configuration with random weights (36 layers of 2560: 3.6 billion
parameters, 7 GB on disk meanwhile), and adapters of rank 16 and 64 over all seven linear modules. Nothing is
downloaded. Every row but the last includes the one token with which a load ends; subtract the last.
Without a GPU it says so and ends well; `--device cpu --layers 2 --hidden 256` shows that it runs.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable
from contextlib import aclosing
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Qwen3Config

from agentflow.engines.local import LocalEngine
from agentflow.protocols import Prompt
from agentflow.tiny import BASE

RANKS = (16, 64)
ALPHA = 2
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ASKED = Prompt([{"role": "user", "content": "Hello"}], max_tokens=1)


def make_base(options: argparse.Namespace, home: Path) -> Path:
    """Random weights in Qwen3's shape, with the shipped tokenizer."""
    told = json.loads((BASE / "config.json").read_bytes())
    heads = max(options.hidden // 80, 4)
    told |= {
        "hidden_size": options.hidden, "intermediate_size": options.hidden * 19 // 5,
        "num_hidden_layers": options.layers,
        "num_attention_heads": heads, "num_key_value_heads": max(heads // 4, 1), "head_dim": 128,
        "layer_types": ["full_attention"] * options.layers, "max_window_layers": options.layers,
    }  # fmt: skip
    torch.manual_seed(0)
    with torch.device(options.device):
        model = AutoModelForCausalLM.from_config(Qwen3Config(**told), dtype=torch.bfloat16)
    print(f"base: {sum(one.numel() for one in model.parameters()) / 1e9:.2f} billion parameters")
    model.save_pretrained(home / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(BASE / name, home / "base" / name)
    shapes = {
        name: tuple(one.weight.shape)
        for name, one in model.named_modules()
        if name.rpartition(".")[2] in MODULES
    }
    for rank in RANKS:
        make_adapter(home / f"rank{rank}", rank, shapes)
    return home / "base"


def make_adapter(folder: Path, rank: int, shapes: dict[str, tuple[int, int]]) -> None:
    folder.mkdir()
    tensors = {}
    for name, (wide, narrow) in shapes.items():
        key = f"base_model.model.{name}.lora"
        tensors[f"{key}_A.weight"] = (torch.randn(rank, narrow) / narrow).bfloat16()
        tensors[f"{key}_B.weight"] = (torch.randn(wide, rank) / wide).bfloat16()
    save_file(tensors, folder / "adapter_model.safetensors")
    told = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank * ALPHA,
        "target_modules": list(MODULES),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(told))


async def measure(options: argparse.Namespace, base: Path, home: Path) -> None:
    engine = LocalEngine(base, device=options.device, dtype="bfloat16")
    await engine.start()
    for rank in RANKS:
        folder = home / f"rank{rank}"
        size = (folder / "adapter_model.safetensors").stat().st_size
        rows: dict[str, list[float]] = {}
        for number in range(options.rounds + 1):
            for what, seconds in (await one_life(engine, f"rank{rank}@{number}", folder)).items():
                rows.setdefault(what, []).append(seconds)
        print(f"rank {rank}, {size / 1e6:.0f} MB:")
        for what, seconds in rows.items():
            warm = [one * 1e3 for one in seconds[1:]]
            print(f"  {what:<28} p50 {statistics.median(warm):8.1f} ms   worst {max(warm):8.1f} ms")
    await engine.close()


async def one_life(engine: LocalEngine, name: str, folder: Path) -> dict[str, float]:
    told = {"disk -> RAM": await timed(engine.load(name, folder, tier="ram"))}
    told["RAM -> VRAM"] = await timed(engine.load(name, folder))
    told["VRAM -> RAM"] = await timed(engine.load(name, folder, tier="ram"))
    await engine.unload(name)
    told["disk -> VRAM"] = await timed(engine.load(name, folder))
    told["one token, in VRAM"] = await timed(one_token(engine, name))
    await engine.unload(name)
    return told


async def one_token(engine: LocalEngine, name: str) -> None:
    async with aclosing(engine.generate(ASKED, adapter=name)) as pieces:
        async for _ in pieces:
            pass


async def timed(work: Awaitable[None]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--hidden", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "There is no GPU that torch can use here: nothing was measured. Run this on a machine with one."
        )
        return
    if options.device == "cuda":
        print(f"on {torch.cuda.get_device_name()}")
    with tempfile.TemporaryDirectory(prefix="agentflow-gpu-") as home:
        asyncio.run(measure(options, make_base(options, Path(home)), Path(home)))


if __name__ == "__main__":
    main()
