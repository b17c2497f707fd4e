"""Built graphs on disk: made once per weights, precision and recipe, and found again in milliseconds."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from agentflow.embedders.weights import FILES, Precision, digest, read_shape
from agentflow.errors import EmbedderError

RECIPE = 1  # raise it whenever minilm_graph's vectors change


def weights_digest(folder: Path, cache: Path) -> str:
    """SHA-256 of the model's files; remembered by their sizes and times, because hashing takes 0.3 s."""
    stamp = hashlib.sha256(str(folder.resolve()).encode())
    for name in FILES:
        status = (folder / name).stat()
        stamp.update(f":{status.st_size}:{status.st_mtime_ns}".encode())
    remembered = cache / f"weights-{stamp.hexdigest()[:16]}.sha256"
    if remembered.is_file():
        return remembered.read_text(encoding="ascii")
    found = digest(folder)
    with _written_whole(remembered) as fresh:
        fresh.write_text(found, encoding="ascii")
    return found


def graph_path(cache: Path, weights: str, precision: Precision) -> Path:
    return cache / f"encoder-{weights[:16]}-{precision}-r{RECIPE}.onnx"


def build_graph(folder: Path, precision: Precision, target: Path, progress: Callable[[str], None]) -> None:
    """Build `target` from the weights in `folder`: some seconds, once. Two builders at a time do no harm.

    Raises EmbedderError for weights that are damaged or of another architecture.
    """
    from agentflow.embedders import minilm_graph  # noqa: PLC0415 - imports onnx: half a second, for building only

    progress(f"building the {precision} embedding graph from {folder} (once)")
    shape = read_shape(folder)
    try:
        with _written_whole(target) as fresh:
            minilm_graph.build(folder / "model.safetensors", shape, precision, fresh)
    except (KeyError, ValueError, SafetensorError) as error:
        raise EmbedderError(
            f"The weights in {folder / 'model.safetensors'} are not those of the BERT encoder that "
            f"config.json describes: {error!r}. Fetch the model again.",
            field="embedder.model",
            value=str(folder),
        ) from error


@contextmanager
def _written_whole(target: Path) -> Iterator[Path]:
    """A temporary name beside `target` that becomes `target` when the block is done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    os.close(descriptor)
    fresh = Path(name)
    try:
        yield fresh
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
