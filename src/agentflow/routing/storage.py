"""What was fitted or embedded before, kept in files: arrays and a JSON header in one .npz, never pickle.

Files appear whole or not at all (written beside, then renamed). A file that cannot be read counts as absent.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentflow.protocols import Vectors
from agentflow.routing.calibration import Scale, Thresholds
from agentflow.routing.classifier import VERSION, Classifier, Example
from agentflow.routing.discriminant import Linear
from agentflow.routing.evidence import Model
from agentflow.routing.ngrams import Lexicon
from agentflow.routing.space import Space
from agentflow.settings.routing import RouterSettings

UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)
Arrays = Mapping[str, NDArray[Any]]


def version_of(examples: Iterable[Example], settings: RouterSettings, embedder: str) -> str:
    """Twelve hex digits that change whenever a decision could: examples, settings, embedder, code."""
    fitted_by = settings.model_dump(
        mode="json", include={"features", "reject_rate", "ask_rate", "text_limit"}
    )
    told = [VERSION, embedder, fitted_by, [[one.role, one.intent, one.text] for one in sorted(examples)]]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def save_classifier(folder: Path, version: str, fitted: Classifier) -> None:
    """Write the classifier as `router-<version>.npz`. Raises OSError."""
    model, lexicon = fitted.model, fitted.space.lexicon or _NO_LEXICON
    header = {
        "version": version,
        "classes": fitted.classes,
        "examples": [[one.role, one.intent, one.text] for one in fitted.examples],
        "space": {"letters": fitted.space.letters, "meaning": fitted.space.meaning},
        "lexicon": None if fitted.space.lexicon is None else lexicon.unseen,
        "scale": asdict(fitted.scale),
        "thresholds": asdict(fitted.thresholds),
        "spread": model.spread,
    }
    arrays: dict[str, NDArray[Any]] = {
        "discriminant_weight": model.discriminant.weight,
        "discriminant_bias": model.discriminant.bias,
        "regression_weight": model.regression.weight,
        "regression_bias": model.regression.bias,
        "unit": model.unit,
        "labels": model.labels,
        "mean": model.mean,
        "gram": lexicon.gram,
        "rarity": lexicon.rarity,
    }
    _write(folder / f"router-{version}.npz", header, arrays)


def load_classifier(folder: Path, version: str) -> Classifier | None:
    """The classifier of this version, or None."""
    try:
        header, arrays = _read(folder / f"router-{version}.npz")
        if header["version"] != version:
            return None
        return _classifier(header, arrays)
    except UNREADABLE:
        return None


def drop_fitted(folder: Path) -> None:
    """Remove every fitted classifier and all vectors of the folder: they hold their examples. Raises OSError."""
    for kept in (*folder.glob("router-*.npz"), *folder.glob("vectors-*.npz")):
        kept.unlink(missing_ok=True)


def _classifier(header: Mapping[str, Any], arrays: Arrays) -> Classifier:
    unseen = header["lexicon"]
    lexicon = None if unseen is None else Lexicon(arrays["gram"], arrays["rarity"], unseen)
    listed = header["scale"]
    scale: dict[str, Any] = {key: tuple(listed[key]) for key in ("label", "scope", "centre", "width")}
    model = Model(
        Linear(arrays["discriminant_weight"], arrays["discriminant_bias"]),
        Linear(arrays["regression_weight"], arrays["regression_bias"]),
        arrays["unit"],
        arrays["labels"],
        arrays["mean"],
        header["spread"],
    )
    return Classifier(
        classes=tuple((role, intent) for role, intent in header["classes"]),
        examples=tuple(Example(*one) for one in header["examples"]),
        space=Space(lexicon, **header["space"]),
        model=model,
        scale=Scale(temper=listed["temper"], **scale),
        thresholds=Thresholds(**header["thresholds"]),
        left_out=None,
    )


class VectorStore:
    """Embeddings of examples by content, so that only new texts are embedded. `folder` None keeps nothing."""

    def __init__(self, folder: Path | None, embedder: str) -> None:
        self._embedder = embedder
        name = hashlib.sha256(embedder.encode()).hexdigest()[:12]
        self._file = folder / f"vectors-{name}.npz" if folder else None

    def load(self, texts: Iterable[str]) -> dict[str, Vectors]:
        """The vectors that are known."""
        if self._file is None:
            return {}
        try:
            header, arrays = _read(self._file)
            places = {key: place for place, key in enumerate(header["keys"])}
            if header["embedder"] != self._embedder or len(places) != len(arrays["vectors"]):
                return {}
        except UNREADABLE:
            return {}
        return {text: arrays["vectors"][places[_key(text)]] for text in texts if _key(text) in places}

    def save(self, vectors: Mapping[str, Vectors]) -> None:
        """Keep these and nothing else. Raises OSError."""
        if self._file is not None and vectors:
            header = {"embedder": self._embedder, "keys": [_key(text) for text in vectors]}
            _write(self._file, header, {"vectors": np.stack(list(vectors.values()))})


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write(file: Path, header: Mapping[str, Any], arrays: Arrays) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with beside.open("wb") as target:
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        np.savez(target, allow_pickle=False, header=text, **arrays)
    beside.replace(file)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    with file.open("rb") as source, np.load(source, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return json.loads(arrays.pop("header").tobytes()), arrays


_NO_LEXICON = Lexicon(np.zeros(0, np.uint64), np.zeros(0, np.float32), 0.0)
