"""A BERT sentence encoder (all-MiniLM-L6-v2 and its like) in this process, without torch."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf, RuntimeException
from tokenizers import Encoding, Tokenizer

from agentflow.embedders.graph_cache import RECIPE, build_graph, graph_path, weights_digest
from agentflow.embedders.weights import MINILM, Precision, find_weights, read_shape
from agentflow.errors import EmbedderError
from agentflow.protocols import Vectors

TOKENS = 256  # word pieces per text; MiniLM was trained with no more
CHARACTERS = 20_000  # more than 256 word pieces of any prose; tokenising megabytes to cut them is waste
BATCH = 32
REMEMBERED = 4096
Result = TypeVar("Result")
_BROKEN = (Fail, InvalidGraph, InvalidProtobuf, RuntimeException)


def silent(_: str) -> None:
    """Progress that nobody watches."""


PORTION = {"int8": 2, "fp32": 32}
"""Texts between which a query may go first: a batch must not hold up a turn."""


class OnnxEmbedder:
    """Embeds in one thread of its own, one core at a time. Constructing does no work.

    `model` is a hub id or a folder; `cache` keeps the built graphs (first use: some seconds). `progress`
    is told, in that thread, of what takes long. `id` and `dim` are known after open().
    """

    def __init__(
        self,
        model: str = MINILM,
        *,
        cache: Path,
        precision: Precision = "int8",
        progress: Callable[[str], None] = silent,
    ) -> None:
        self._cache = cache
        self._model = model
        self._precision: Precision = precision
        self._progress = progress
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._remembered = Remembered(REMEMBERED)
        self._encoder: Encoder | None = None
        self._closed = False

    @property
    def id(self) -> str:
        """As in `all-MiniLM-L6-v2/int8/r1/0147dd926818`. EmbedderError before open()."""
        name = self._model.rstrip("/").rsplit("/", 1)[-1]
        return f"{name}/{self._precision}/r{RECIPE}/{self._opened().weights[:12]}"

    @property
    def dim(self) -> int:
        """Length of a vector. EmbedderError before open()."""
        return self._opened().dim

    def _opened(self) -> "Encoder":
        if self._encoder is None:
            raise EmbedderError("The embedder is not open yet: await open() first.")
        return self._encoder

    async def open(self) -> None:
        """Load, at the very first use also build; embed() does so itself. Raises EmbedderError."""
        await self._in_thread(self._load)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim], rows of length 1, of 256 word pieces at most. Raises EmbedderError.

        Texts that were embedded a moment ago do not wait for the thread: a turn asks for its message twice.
        """
        wanted = list(texts)
        known = [vector for text in wanted if (vector := self._remembered.get(text)) is not None]
        if wanted and len(known) == len(wanted) and not self._closed:
            return np.stack(known)
        size = PORTION[self._precision]
        portions = [wanted[start : start + size] for start in range(0, len(wanted), size)] or [[]]
        return np.concatenate([await self._in_thread(partial(self._embed, portion)) for portion in portions])

    async def close(self) -> None:
        """End the thread; embedding afterwards is an EmbedderError."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        if self._closed:
            raise EmbedderError("The embedder is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _load(self) -> "Encoder":
        if self._encoder is None:
            folder = find_weights(self._model, self._progress)
            self._encoder = open_encoder(folder, self._precision, self._cache, self._progress)
        return self._encoder

    def _embed(self, texts: list[str]) -> Vectors:
        encoder = self._load()
        vectors = np.empty((len(texts), encoder.dim), np.float32)
        known = [self._remembered.get(text) for text in texts]
        fresh = sorted({text for text, vector in zip(texts, known, strict=True) if vector is None})
        made = dict(zip(fresh, encoder.encode(fresh), strict=True))
        for row, (text, vector) in enumerate(zip(texts, known, strict=True)):
            vectors[row] = made[text] if vector is None else vector
        for text, vector in made.items():
            self._remembered.put(text, vector)
        return vectors


class Remembered:
    """The vectors of the last texts, under the texts' hashes: what users wrote is not kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[bytes, Vectors] = OrderedDict()

    def get(self, text: str) -> Vectors | None:
        key = _key(text)
        vector = self._vectors.get(key)
        with suppress(KeyError):  # never there, or just left in the other thread
            self._vectors.move_to_end(key)
        return vector

    def put(self, text: str, vector: Vectors) -> None:
        self._vectors[_key(text)] = vector
        if len(self._vectors) > self._size:
            self._vectors.popitem(last=False)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class Encoder:
    """A loaded model. `batch` is 1 for int8: its activations are scaled over the whole batch, so neighbours
    would change a text's vector (down to cosine .985, measured).
    """

    tokenizer: Tokenizer
    session: ort.InferenceSession
    dim: int
    weights: str
    batch: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim], in the order of `texts`; batches are of similar lengths."""
        pieces = [self.tokenizer.encode(_clean(text)) for text in texts]
        order = sorted(range(len(pieces)), key=lambda at: len(pieces[at].ids))
        vectors = np.empty((len(texts), self.dim), np.float32)
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            vectors[rows] = self._run([pieces[row] for row in rows])
        return vectors

    def _run(self, pieces: Sequence[Encoding]) -> NDArray[np.float32]:
        sizes = [len(piece.ids) for piece in pieces]
        ids = np.zeros((len(pieces), max(sizes)), np.int64)
        for row, piece in enumerate(pieces):
            ids[row, : sizes[row]] = piece.ids
        mask = (np.arange(max(sizes)) < np.array(sizes)[:, None]).astype(np.int64)
        try:
            output: NDArray[np.float32] = self.session.run(None, {"input_ids": ids, "attention_mask": mask})[
                0
            ]
        except _BROKEN as error:
            raise EmbedderError(f"ONNX Runtime cannot embed {len(pieces)} texts: {error}") from error
        return output


def _clean(text: str) -> str:
    """Half a surrogate pair (JSON allows it) is no text to the tokenizer."""
    return text[:CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def open_encoder(
    folder: Path, precision: Precision, cache: Path, progress: Callable[[str], None] = silent
) -> Encoder:
    """Load from `cache`, building what is missing or damaged there. Raises EmbedderError."""
    shape = read_shape(folder)
    try:
        weights = weights_digest(folder, cache)
        session = _session(folder, precision, graph_path(cache, weights, precision), progress)
    except OSError as error:
        raise EmbedderError(
            f"The embedding graph cannot be kept in {cache}: {error}. Set AGENTFLOW_CACHE to a folder "
            "that may be written, with 100 MB of room."
        ) from error
    tokenizer = _tokenizer(folder / "tokenizer.json", min(TOKENS, shape.positions))
    return Encoder(tokenizer, session, shape.hidden, weights, batch=1 if precision == "int8" else BATCH)


def _session(
    folder: Path, precision: Precision, graph: Path, progress: Callable[[str], None]
) -> ort.InferenceSession:
    if graph.is_file():
        try:
            return start_session(graph)
        except _BROKEN:
            progress(f"{graph} is damaged and is built again")
    build_graph(folder, precision, graph, progress)
    return start_session(graph)


def start_session(graph: Path) -> ort.InferenceSession:
    """One thread that sleeps when idle: more threads make a busy machine an order slower."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _tokenizer(path: Path, tokens: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # its one error class is Exception itself
        raise EmbedderError(f"{path} is no usable tokenizer: {error}", field="embedder.model") from error
    tokenizer.enable_truncation(tokens)
    tokenizer.no_padding()
    return tokenizer
