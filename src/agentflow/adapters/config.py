"""adapter_config.json: read as data, and refused where engines would misread it."""

import json
import re
from pathlib import Path
from typing import Any

from agentflow.adapters.header import no_constant
from agentflow.adapters.refusal import refuse

CONFIG = "adapter_config.json"
CONFIG_LIMIT = 1 << 20

# Settings of an adapter that change what it computes and that not every engine can do.
_UNSUPPORTED = (
    "use_dora", "lora_bias", "modules_to_save", "layer_replication", "use_qalora", "use_bdlora",
    "alora_invocation_tokens", "trainable_token_indices", "target_parameters", "megatron_config",
    "arrow_config", "kasa_config", "velora_config", "monteclora_config", "fan_in_fan_out",
)  # fmt: skip
# Initial weights that leave the base model as it is (PiSSA, OLoRA, CorDA and LoftQ change it).
_HARMLESS_INITS = {"gaussian", "eva", "orthogonal", "mica", "lora_ga"}
_IMPORTED = {"transformers", "peft"}


def read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > CONFIG_LIMIT:
            refuse(CONFIG, path.stat().st_size, "is larger than 1 MiB", "Save the adapter with PEFT again.")
        config = json.loads(path.read_bytes(), parse_constant=no_constant)
    except (OSError, ValueError, RecursionError) as error:
        refuse(
            CONFIG, str(path), f"is not readable JSON ({error})", "Save the adapter with PEFT again.", error
        )
    if not isinstance(config, dict):
        refuse(CONFIG, str(path), "is not a JSON object", "Save the adapter with PEFT again.")
    return config


def check_config(config: dict[str, Any], max_rank: int) -> int:
    """The largest rank that the configuration speaks of."""
    if config.get("peft_type") != "LORA":
        refuse("peft_type", config.get("peft_type"), "is not LORA", "Train or convert it to a LoRA adapter.")
    for key in _UNSUPPORTED:
        if config.get(key):
            refuse(
                key, config[key], "is not supported by every engine", "Train a plain LoRA adapter without it."
            )
    if config.get("bias", "none") not in ("none", None):
        refuse("bias", config["bias"], "is not supported", 'Train with bias="none".')
    _check_imports(config)
    _check_init(config.get("init_lora_weights", True))
    _check_patterns(config)
    _check_alpha(config)
    return _largest_rank(config, max_rank)


def _check_imports(config: dict[str, Any]) -> None:
    """PEFT imports the library that `auto_mapping` names; `auto_map` names code beside the weights."""
    if config.get("auto_map"):
        refuse("auto_map", config["auto_map"], "names code to run", "Take it out of the configuration.")
    library = mapping(config, "auto_mapping").get("parent_library") or "transformers"
    if not isinstance(library, str) or library.split(".")[0] not in _IMPORTED:
        refuse("auto_mapping", library, "would be imported", "Take auto_mapping out of the configuration.")


def _check_init(init: object) -> None:
    if isinstance(init, str) and init.lower() not in _HARMLESS_INITS:
        way = "Convert it with PEFT's path_initial_model_for_weight_conversion."
        refuse("init_lora_weights", init, "needs a changed base model", way)


def _check_alpha(config: dict[str, Any]) -> None:
    values = [config.get("lora_alpha"), *mapping(config, "alpha_pattern").values()]
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e6:
            refuse("lora_alpha", value, "is not a reasonable number", "Use a number such as 16.")


def _largest_rank(config: dict[str, Any], max_rank: int) -> int:
    largest = 0
    for rank in (config.get("r"), *mapping(config, "rank_pattern").values()):
        if type(rank) is not int or rank < 1:
            refuse("r", rank, "is not a positive whole number", "Save the adapter with PEFT again.")
        if rank > max_rank:
            way = "Raise the engine's highest rank (vLLM: --max-lora-rank) or train with a lower one."
            refuse("r", rank, f"is above the highest allowed rank {max_rank}", way)
        largest = max(largest, rank)
    return largest


def _check_patterns(config: dict[str, Any]) -> None:
    """Engines evaluate these as regular expressions: only such as cannot run away are let through."""
    for key in ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"):
        value = config.get(key) or []
        if not isinstance(value, str | list | dict):
            refuse(key, value, "is neither text nor a list nor a table", "Save the adapter with PEFT again.")
        for pattern in [value] if isinstance(value, str) else value:
            if not isinstance(pattern, str) or not _is_tame(pattern):
                refuse(
                    key, pattern, "is not a plain module name or simple pattern", "Name the modules plainly."
                )


def _is_tame(pattern: str) -> bool:
    if len(pattern) > 500 or pattern.count("*") > 3:
        return False
    return re.fullmatch(r"(?:\.\*|[\w.^$|()\\-])*", pattern) is not None and ")*" not in pattern


def mapping(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        refuse(key, value, "is not a table of module names", "Save the adapter with PEFT again.")
    return value
