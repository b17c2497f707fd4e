"""The base model, its tokenizer and its adapters: everything that touches torch. Used by one thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from agentflow.adapters import WEIGHTS, BaseShape, check
from agentflow.engines.local.cache import Rows, joined, kept, padded
from agentflow.errors import AdapterError, ConfigError, PromptRefused, StartError
from agentflow.prompt import ChatMessage


@dataclass(frozen=True)
class Choice:
    """Which base model, and how it runs. `dtype` "auto": float32 on a CPU, bfloat16 on a GPU."""

    base: str
    device: str
    dtype: str
    threads: int
    thinking: bool | None


@dataclass(frozen=True)
class Weights:
    """An adapter in RAM: its configuration, and its tensors on the CPU."""

    config: Any
    tensors: dict[str, Any]


class Model:
    """Raises ConfigError when the base cannot be read, StartError when the device is missing."""

    def __init__(self, choice: Choice) -> None:
        transformers_logging.disable_progress_bar()
        self._device = _device(choice.device)
        if self._device == "cpu":
            torch.set_num_threads(choice.threads)
        self._template = {} if choice.thinking is None else {"enable_thinking": choice.thinking}
        self._tokenizer, self._base = _read_base(choice.base, _dtype(choice.dtype, self._device))
        self._base.to(self._device).eval()
        self._shape = BaseShape.read(Path(choice.base)) if Path(choice.base).is_dir() else None
        self._adapted: Any = None
        self._last_voice = 0
        self.ends = _ends(self._base, self._tokenizer)
        self.context = int(getattr(self._base.config, "max_position_embeddings", 1 << 20))

    # --- text

    def encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Raises GenerationFailed when the chat template does not take the messages."""
        try:
            encoded = self._tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, return_dict=True, **self._template
            )
        except Exception as error:
            raise PromptRefused(f"The base model's chat template refuses the messages: {error}") from error
        return [int(token) for token in encoded["input_ids"]]

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    # --- adapters

    def load(self, folder: Path) -> str:
        """Read an adapter to the device; returns the voice it answers to. Raises AdapterError, then as before."""
        check(folder, base=self._shape, max_rank=1 << 16)
        return self._attached(str(folder), lambda voice: self._read(voice, folder))

    def read(self, folder: Path) -> Weights:
        """Read an adapter to RAM. Raises AdapterError."""
        check(folder, base=self._shape, max_rank=1 << 16)
        try:
            return Weights(PeftConfig.from_pretrained(str(folder)), load_file(folder / WEIGHTS, device="cpu"))
        except Exception as error:
            raise AdapterError(f"adapter: {folder} cannot be read: {error}", field="adapter") from error

    def attach(self, weights: Weights) -> str:
        """Move an adapter from RAM to the device; returns its voice. Raises AdapterError and is then as before."""
        return self._attached("an adapter in RAM", lambda voice: self._raise(voice, weights))

    def weights(self, voice: str) -> Weights:
        """A copy of the voice in RAM."""
        state = get_peft_model_state_dict(self._adapted, adapter_name=voice, save_embedding_layers=False)
        tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
        return Weights(self._adapted.peft_config[voice], tensors)

    def unload(self, voice: str) -> None:
        """Free the voice's weights."""
        others = [known for known in self._adapted.peft_config if known != voice]
        if others:
            self._adapted.set_adapter(others[0])
            self._adapted.delete_adapter(voice)
        else:
            self._base, self._adapted = self._adapted.unload(), None
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _attached(self, what: str, bring: Callable[[str], None]) -> str:
        self._last_voice += 1
        voice = f"voice{self._last_voice}"
        try:
            bring(voice)
        except Exception as error:
            self._discard(voice)
            raise AdapterError(
                f"adapter: {what} does not fit the base model: {error}", field="adapter"
            ) from error
        self._adapted.eval()
        return voice

    def _raise(self, voice: str, weights: Weights) -> None:
        if self._adapted is None:
            self._adapted = PeftModel(
                self._base,
                weights.config,
                adapter_name=voice,
                autocast_adapter_dtype=False,
                low_cpu_mem_usage=True,
            )
        else:
            self._adapted.add_adapter(
                voice, weights.config, low_cpu_mem_usage=True, autocast_adapter_dtype=False
            )
        state = {name: tensor.to(self._device) for name, tensor in weights.tensors.items()}
        set_peft_model_state_dict(self._adapted, state, adapter_name=voice, low_cpu_mem_usage=True)

    def _read(self, voice: str, folder: Path) -> None:
        if self._adapted is None:
            self._adapted = PeftModel.from_pretrained(
                self._base, str(folder), adapter_name=voice, autocast_adapter_dtype=False
            )
        else:
            self._adapted.load_adapter(str(folder), voice, autocast_adapter_dtype=False)

    def _discard(self, voice: str) -> None:
        """Undo half a load."""
        if self._adapted is None:
            _strip(self._base)
        elif voice in self._adapted.peft_config:
            self.unload(voice)

    # --- tokens

    def start(self, prompts: Sequence[Sequence[int]], voices: Sequence[str]) -> tuple[Any, Rows]:
        """Read prompts: logits [rows, vocabulary] of each row's first token, and the rows."""
        ids, rows = padded(prompts, self._device)
        positions = (rows.mask.cumsum(dim=1) - 1).clamp(min=0)
        return self._logits(ids, positions, rows, voices), rows

    def step(self, tokens: Sequence[int], rows: Rows, voices: Sequence[str]) -> Any:
        """Add one token to every row: logits [rows, vocabulary] of the next."""
        positions = rows.positions
        rows.grow()
        ids = torch.tensor([[token] for token in tokens], device=self._device)
        return self._logits(ids, positions, rows, voices)

    def joined(self, left: Rows, right: Rows) -> Rows:
        with torch.inference_mode():
            return joined(left, right)

    def kept(self, rows: Rows, indices: Sequence[int]) -> Rows:
        with torch.inference_mode():
            return kept(rows, indices)

    def _logits(self, ids: Any, positions: Any, rows: Rows, voices: Sequence[str]) -> Any:
        inputs = {
            "input_ids": ids, "position_ids": positions, "attention_mask": rows.mask,
            "past_key_values": rows.cache, "use_cache": True, "logits_to_keep": 1,
        }  # fmt: skip
        with torch.inference_mode():
            if self._adapted is None:
                output = self._base(**inputs)
            else:
                output = self._adapted(**inputs, adapter_names=list(voices))
        return output.logits[:, -1]


def _device(wanted: str) -> str:
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise StartError(
            "model.device is cuda, but torch finds no GPU. Use auto or cpu.", field="model.device"
        )
    return "cuda" if available and wanted != "cpu" else "cpu"


def _dtype(wanted: str, device: str) -> Any:
    if wanted == "auto":
        return torch.bfloat16 if device == "cuda" else torch.float32
    return getattr(torch, wanted)


def _read_base(base: str, dtype: Any) -> tuple[Any, Any]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        return tokenizer, AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"model.base: '{base}' cannot be loaded: {error}. Name a folder with config.json, tokenizer and "
            "safetensors weights, or a hub id such as Qwen/Qwen3-0.6B.",
            field="model.base",
            value=base,
        ) from error


def _ends(base: Any, tokenizer: Any) -> frozenset[int]:
    ends = base.generation_config.eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    return frozenset(end for end in (*listed, tokenizer.eos_token_id) if end is not None)


def _strip(base: Any) -> None:
    """Take half-made LoRA layers out of the base model."""
    for parent in list(base.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(parent, name, child.get_base_layer())
