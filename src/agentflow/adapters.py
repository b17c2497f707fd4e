"""LoRA adapter folders, read and judged before any engine sees them.

Engines accept bad files silently or die of them: vLLM loads a wrong hidden size and all-zero
weights with a 200 (vllm#34186, #55193). So the small JSON configuration and the *header* of the
safetensors file are checked here against the base model's shapes. Nothing is ever unpickled.
"""

import json
import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, NoReturn

import numpy as np

from agentflow.errors import ConfigError, InvalidAdapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CONFIG_LIMIT = 1 << 20
HEADER_LIMIT = 100_000_000
"""Bytes; the safetensors format's own limit of a header."""

_DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
_FLOATS: dict[str, tuple[str, int]] = {
    "F16": ("<u2", 0x7FFF),
    "BF16": ("<u2", 0x7FFF),
    "F32": ("<u4", 0x7FFFFFFF),
}
_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
_LORA_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_LAYER = re.compile(r"(?:model\.)?layers\.(?P<layer>\d{1,5})\.(?P<inner>.+)")
_EXPERT = re.compile(r"mlp\.experts\.(?P<expert>\d{1,5})\.(?P<leaf>\w+)")
_WINDOW, _WINDOWS = 4096, 16

# Settings of an adapter that change what it computes and that not every engine can do.
_UNSUPPORTED = (
    "use_dora", "lora_bias", "modules_to_save", "layer_replication", "use_qalora", "use_bdlora",
    "alora_invocation_tokens", "trainable_token_indices", "target_parameters", "megatron_config",
    "arrow_config", "kasa_config", "velora_config", "monteclora_config", "fan_in_fan_out",
)  # fmt: skip
# Initial weights that leave the base model as it is (PiSSA, OLoRA, CorDA and LoftQ change it).
_HARMLESS_INITS = {"gaussian", "eva", "orthogonal", "mica", "lora_ga"}


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


@dataclass(frozen=True)
class BaseShape:
    """The linear modules of a base model: `modules` maps a name within a layer to (in, out) features."""

    layers: int
    modules: Mapping[str, tuple[int, int]]
    experts: int = 0

    @classmethod
    def read(cls, folder: Path) -> "BaseShape | None":
        """From the folder's config.json; None for an architecture whose shapes are not known here.

        Raises ConfigError when config.json is missing or contradictory.
        """
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            return _shape_of(config) if config.get("model_type") in _KNOWN_TYPES else None
        except (OSError, ValueError, TypeError, AttributeError, KeyError, ArithmeticError) as error:
            raise ConfigError(
                f"The base model's config.json in {folder} cannot be used ({error!r}). Point model.base at a "
                "folder with config.json, tokenizer and safetensors weights, or at a hub id.",
                field="model.base",
                value=str(folder),
            ) from error

    def features(self, module: str) -> tuple[int, int] | None:
        """(in, out) of a module such as `model.layers.0.self_attn.q_proj`, or None if there is none."""
        found = _LAYER.fullmatch(module)
        if not found or int(found["layer"]) >= self.layers:
            return None
        expert = _EXPERT.fullmatch(found["inner"])
        if not expert:
            return self.modules.get(found["inner"])
        return (
            self.modules.get(f"mlp.experts.{expert['leaf']}")
            if int(expert["expert"]) < self.experts
            else None
        )


@dataclass(frozen=True)
class AdapterFiles:
    """A valid adapter. `rank` is the largest of its tensors; `bytes` the size of the weights file."""

    folder: Path
    sha256: str
    rank: int
    modules: tuple[str, ...]
    bytes: int
    dtype: str
    tensors: int


def identity(role: str, digest: str) -> str:
    """The name an engine knows the adapter by: new weights have a new name (vllm#30931, #42125)."""
    return f"{role}@{digest[:12]}"


def inspect(folder: Path, *, base: BaseShape | None, max_rank: int) -> AdapterFiles:
    """Check the folder and hash it. Reads the whole weights file once. Raises InvalidAdapter.

    `base` None leaves out the comparison with the base model's shapes.
    """
    checked = check(folder, base=base, max_rank=max_rank)
    return AdapterFiles(**{**checked.__dict__, "sha256": digest(folder)})


def check(folder: Path, *, base: BaseShape | None, max_rank: int) -> AdapterFiles:
    """As `inspect`, without the hash (`sha256` is empty): reads the header and samples of the weights."""
    config_path, weights_path = _files(folder)
    config = _read_config(config_path)
    rank = _check_config(config, max_rank)
    try:
        with weights_path.open("rb") as file:
            header = read_header(file, weights_path.stat().st_size)
            facts = _check_tensors(header.tensors, config, base)
            _check_not_silent(file, header)
    except OSError as error:
        _refuse("weights", str(weights_path), f"cannot be read ({error})", "Check its permissions.", error)
    size = header.data_start + sum(tensor.end - tensor.start for tensor in header.tensors)
    return AdapterFiles(folder, "", rank, facts.modules, size, facts.dtype, len(header.tensors))


def digest(folder: Path) -> str:
    """SHA-256 over length (8 bytes, little endian) and content of the configuration, then of the weights."""
    state = sha256()
    for path in _files(folder):
        try:
            with path.open("rb") as file:
                state.update(path.stat().st_size.to_bytes(8, "little"))
                while block := file.read(1 << 20):
                    state.update(block)
        except OSError as error:
            _refuse("lora_path", str(path), f"cannot be read ({error})", "Check its permissions.", error)
    return state.hexdigest()


# --- the files -------------------------------------------------------------------------------


def _files(folder: Path) -> tuple[Path, Path]:
    try:
        home = folder.resolve(strict=True)
        if not home.is_dir():
            _refuse("lora_path", str(folder), "is not a folder", f"Name the folder that holds {CONFIG}.")
        return _inside(home, CONFIG), _inside(home, WEIGHTS)
    except (OSError, ValueError, RuntimeError) as error:
        _refuse("lora_path", str(folder), "does not exist or cannot be opened", "Correct the path.", error)


def _inside(home: Path, name: str) -> Path:
    path = (home / name).resolve()
    if not path.is_relative_to(home):
        _refuse(
            "lora_path", str(home / name), "is a link out of its folder", "Copy the file into the folder."
        )
    if not path.exists():
        _refuse("lora_path", str(home), f"has no {name}", _remedy(home, name))
    if not S_ISREG(path.stat().st_mode):
        _refuse("lora_path", str(home / name), "is not a regular file", "Copy the real file into the folder.")
    return path


def _remedy(home: Path, name: str) -> str:
    pickled = sorted(path.name for path in home.iterdir() if path.suffix in _PICKLED)
    if name == WEIGHTS and pickled:
        return (
            f"{pickled[0]} is a pickle, which can run code and is never opened: convert it where you "
            "trust it, with PEFT's save_pretrained(..., safe_serialization=True)."
        )
    return "Save the adapter with PEFT's save_pretrained()."


# --- adapter_config.json ---------------------------------------------------------------------


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > CONFIG_LIMIT:
            _refuse(CONFIG, path.stat().st_size, "is larger than 1 MiB", "Save the adapter with PEFT again.")
        config = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        _refuse(
            CONFIG, str(path), f"is not readable JSON ({error})", "Save the adapter with PEFT again.", error
        )
    if not isinstance(config, dict):
        _refuse(CONFIG, str(path), "is not a JSON object", "Save the adapter with PEFT again.")
    return config


def _check_config(config: dict[str, Any], max_rank: int) -> int:
    """The largest rank that the configuration speaks of."""
    if config.get("peft_type") != "LORA":
        _refuse("peft_type", config.get("peft_type"), "is not LORA", "Train or convert it to a LoRA adapter.")
    for key in _UNSUPPORTED:
        if config.get(key):
            _refuse(
                key, config[key], "is not supported by every engine", "Train a plain LoRA adapter without it."
            )
    if config.get("bias", "none") not in ("none", None):
        _refuse("bias", config["bias"], "is not supported", 'Train with bias="none".')
    _check_init(config.get("init_lora_weights", True))
    _check_patterns(config)
    _check_alpha(config)
    return _largest_rank(config, max_rank)


def _check_init(init: object) -> None:
    if isinstance(init, str) and init.lower() not in _HARMLESS_INITS:
        way = "Convert it with PEFT's path_initial_model_for_weight_conversion."
        _refuse("init_lora_weights", init, "needs a changed base model", way)


def _check_alpha(config: dict[str, Any]) -> None:
    values = [config.get("lora_alpha"), *_mapping(config, "alpha_pattern").values()]
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e6:
            _refuse("lora_alpha", value, "is not a reasonable number", "Use a number such as 16.")


def _largest_rank(config: dict[str, Any], max_rank: int) -> int:
    largest = 0
    for rank in (config.get("r"), *_mapping(config, "rank_pattern").values()):
        if type(rank) is not int or rank < 1:
            _refuse("r", rank, "is not a positive whole number", "Save the adapter with PEFT again.")
        if rank > max_rank:
            way = "Raise the engine's highest rank (vLLM: --max-lora-rank) or train with a lower one."
            _refuse("r", rank, f"is above the highest allowed rank {max_rank}", way)
        largest = max(largest, rank)
    return largest


def _check_patterns(config: dict[str, Any]) -> None:
    """Engines evaluate these as regular expressions: only such as cannot run away are let through."""
    for key in ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"):
        value = config.get(key) or []
        if not isinstance(value, str | list | dict):
            _refuse(key, value, "is neither text nor a list nor a table", "Save the adapter with PEFT again.")
        for pattern in [value] if isinstance(value, str) else value:
            if not isinstance(pattern, str) or not _is_tame(pattern):
                _refuse(
                    key, pattern, "is not a plain module name or simple pattern", "Name the modules plainly."
                )


def _is_tame(pattern: str) -> bool:
    if len(pattern) > 500 or pattern.count("*") > 3:
        return False
    return re.fullmatch(r"(?:\.\*|[\w.^$|()\\-])*", pattern) is not None and ")*" not in pattern


def _mapping(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        _refuse(key, value, "is not a table of module names", "Save the adapter with PEFT again.")
    return value


# --- the safetensors header ------------------------------------------------------------------


def read_header(file: BinaryIO, size: int) -> Header:
    """Parse the header of a safetensors file of `size` bytes and check it against that size.

    Layout: 8 bytes length (little endian), that many bytes of JSON, data without gaps or overlaps.
    Raises InvalidAdapter.
    """
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > size - 8:
        _refuse(WEIGHTS, size, "is truncated", "Copy or download the file again.")
    if length > HEADER_LIMIT:
        _refuse(WEIGHTS, length, f"has a header of more than {HEADER_LIMIT} bytes", "It is no adapter file.")
    try:
        entries = json.loads(file.read(length), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _refuse(WEIGHTS, length, f"has a header that is not JSON ({error})", "Copy the file again.", error)
    if not isinstance(entries, dict):
        _refuse(WEIGHTS, length, "has a header that is not a JSON object", "Copy the file again.")
    tensors = [_tensor(name, entry) for name, entry in entries.items() if name != "__metadata__"]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    _check_layout(tensors, size - 8 - length)
    return Header(tuple(tensors), 8 + length)


def _tensor(name: str, entry: object) -> Tensor:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        _refuse(name, entry, "is not described by dtype, shape and data_offsets", "Copy the file again.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPE_BYTES:
        _refuse(name, dtype, "has an unknown dtype", "Save the adapter as bfloat16, float16 or float32.")
    if not _are_sizes(shape, at_most=8):
        _refuse(name, shape, "has an impossible shape", "Copy the file again.")
    if not _are_sizes(offsets, at_most=2) or len(offsets) != 2:
        _refuse(name, offsets, "has impossible offsets", "Copy the file again.")
    start, end = offsets
    if math.prod(shape) * _DTYPE_BYTES[dtype] != end - start:
        _refuse(name, offsets, f"does not hold {shape} values of {dtype}", "Copy the file again.")
    return Tensor(name, dtype, tuple(shape), start, end)


def _are_sizes(values: object, *, at_most: int) -> bool:
    if not isinstance(values, list) or len(values) > at_most:
        return False
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _check_layout(tensors: list[Tensor], data_bytes: int) -> None:
    position = 0
    for tensor in tensors:
        if tensor.start != position:
            _refuse(
                tensor.name, tensor.start, "overlaps another tensor or leaves a gap", "Copy the file again."
            )
        position = tensor.end
    if position != data_bytes:
        _refuse(
            WEIGHTS, data_bytes, f"holds not the {position} bytes of data its header names", "Copy it again."
        )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name appears twice")
    return entries


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# --- the tensors -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Facts:
    modules: tuple[str, ...]
    dtype: str


def _check_tensors(tensors: tuple[Tensor, ...], config: dict[str, Any], base: BaseShape | None) -> _Facts:
    pairs: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        found = _LORA_KEY.fullmatch(tensor.name)
        if not found:
            way = "Adapters hold base_model.model.<module>.lora_A.weight and lora_B.weight only."
            _refuse(tensor.name, tensor.shape, "is not a LoRA matrix", way)
        if tensor.dtype not in _FLOATS:
            _refuse(tensor.name, tensor.dtype, "is not bfloat16, float16 or float32", "Save it as bfloat16.")
        pairs.setdefault(found["module"], {})[found["side"]] = tensor
    if not pairs:
        _refuse(WEIGHTS, 0, "holds no tensors", "Save the adapter with PEFT again.")
    for module, pair in pairs.items():
        _check_pair(module, pair, config)
        _check_target(module, config.get("target_modules"))
        _check_against_base(module, pair, base)
    dtypes = sorted({tensor.dtype for tensor in tensors})
    return _Facts(tuple(sorted({module.rpartition(".")[2] for module in pairs})), "+".join(dtypes))


def _check_pair(module: str, pair: dict[str, Tensor], config: dict[str, Any]) -> None:
    if len(pair) != 2:
        _refuse(
            module, sorted(pair), "has only one of lora_A and lora_B", "Save the adapter with PEFT again."
        )
    a, b = pair["A"].shape, pair["B"].shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        _refuse(
            module, [a, b], "is not a pair of matrices [rank, in] and [out, rank]", "Save it with PEFT again."
        )
    if a[0] not in {config["r"], *_mapping(config, "rank_pattern").values()}:
        _refuse(
            module, a[0], f"has a rank that {CONFIG} does not name", "Use the configuration saved with it."
        )


def _check_target(module: str, targets: object) -> None:
    """Engines disagree on tensors that `target_modules` leaves out: some apply them, some do not."""
    if not isinstance(targets, list):
        return
    if not any(module == target or module.endswith(f".{target}") for target in targets):
        _refuse("target_modules", targets, f"does not name {module}", "Use the configuration saved with it.")


def _check_against_base(module: str, pair: dict[str, Tensor], base: BaseShape | None) -> None:
    if base is None:
        return
    features = base.features(module)
    if features is None:
        way = "The adapter was trained on another base model: train it on model.base or change model.base."
        _refuse(module, pair["A"].shape, "does not exist in the base model", way)
    found = (pair["A"].shape[1], pair["B"].shape[0])
    if found != features:
        way = "The adapter was trained on another base model: train it on model.base or change model.base."
        _refuse(module, found, f"has other (in, out) sizes than the base model's {features}", way)


def _check_not_silent(file: BinaryIO, header: Header) -> None:
    """An adapter whose every sampled lora_B value is zero changes nothing: a training run that never ran."""
    outputs = [tensor for tensor in header.tensors if tensor.name.endswith(".lora_B.weight")]
    if not any(_speaks(file, header.data_start, tensor) for tensor in outputs):
        _refuse(
            "lora_B", 0, "is zero everywhere", "The adapter was saved untrained: train it and save it again."
        )


def _speaks(file: BinaryIO, data_start: int, tensor: Tensor) -> bool:
    code, mask = _FLOATS[tensor.dtype]
    size, item = tensor.end - tensor.start, _DTYPE_BYTES[tensor.dtype]
    step = max(_WINDOW, size // _WINDOWS // item * item)
    for offset in range(0, size, step):
        file.seek(data_start + tensor.start + offset)
        block = file.read(min(_WINDOW, size - offset))
        if np.any(np.frombuffer(block[: len(block) // item * item], dtype=code) & mask):
            return True
    return False


# --- base models -----------------------------------------------------------------------------

_KNOWN_TYPES = {"llama", "mistral", "qwen2", "qwen3", "qwen3_moe"}


def _shape_of(config: dict[str, Any]) -> BaseShape:
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    head = int(config.get("head_dim") or hidden // heads)
    values = int(config.get("num_key_value_heads") or heads) * head
    modules = {
        "self_attn.q_proj": (hidden, heads * head),
        "self_attn.k_proj": (hidden, values),
        "self_attn.v_proj": (hidden, values),
        "self_attn.o_proj": (heads * head, hidden),
        **_feed_forward("mlp.", hidden, int(config["intermediate_size"])),
    }
    experts = int(config.get("num_experts") or 0)
    if experts:
        modules |= _feed_forward("mlp.experts.", hidden, int(config["moe_intermediate_size"]))
    return BaseShape(int(config["num_hidden_layers"]), modules, experts)


def _feed_forward(prefix: str, hidden: int, inner: int) -> dict[str, tuple[int, int]]:
    up = (hidden, inner)
    return {f"{prefix}gate_proj": up, f"{prefix}up_proj": up, f"{prefix}down_proj": (inner, hidden)}


def _refuse(field: str, value: object, what: str, way_out: str, cause: Exception | None = None) -> NoReturn:
    """Names and values come from strangers' files: they are shortened, and printable as UTF-8."""
    shown = _printable(value) if isinstance(value, str) else value
    if not isinstance(shown, str | int | float | None):
        shown = reprlib.repr(shown)
    message = f"{_printable(field)}: {shown!r} {what}. {way_out}"
    raise InvalidAdapter(message, field=_printable(field), value=shown) from cause


def _printable(text: str) -> str:
    return text[:300].encode("utf-8", "backslashreplace").decode("utf-8")
