"""Any server with an OpenAI-compatible /v1/embeddings."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from agentflow.errors import EmbedderError
from agentflow.protocols import Vectors

RETRY_AFTER = 2.0  # seconds, told to callers when the server may only be busy
SHORTEST = 1e-12  # a vector below this length has no direction


class RemoteEmbedder:
    """`url` is the server's root or its /v1. `dim` is learned from the first answer unless given.

    `timeout` is seconds per request of at most `batch` texts. Answers in floats and in base64 are
    understood. `transport` replaces the network.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        api_key: str | None = None,
        timeout: float = 10.0,
        dim: int | None = None,
        batch: int = 64,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/v1/embeddings"
        self._model = model
        self._batch = batch
        self._dim = dim
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.AsyncClient(
            headers=headers, timeout=timeout, transport=transport, trust_env=False
        )

    @property
    def id(self) -> str:
        """`remote/<model>/<dim>`: of its weights the server tells no more. EmbedderError before open()."""
        return f"remote/{self._model}/{self.dim}"

    @property
    def dim(self) -> int:
        """Length of a vector. EmbedderError while neither given nor learned."""
        if self._dim is None:
            raise EmbedderError("The remote embedder's dimension is not known yet: await open() first.")
        return self._dim

    async def open(self) -> None:
        """Ask for one vector: checks server, key and model, learns the dimension. Raises EmbedderError."""
        await self.embed(["hello"])

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim], rows of length 1. Raises EmbedderError for all that can go wrong."""
        parts = [texts[at : at + self._batch] for at in range(0, len(texts), self._batch)]
        rows = [await self._ask(part) for part in parts]
        if self._dim is None:
            await self.open()
        return np.concatenate([np.zeros((0, self.dim), np.float32), *rows])

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, texts: Sequence[str]) -> Vectors:
        body = {"model": self._model, "input": list(map(_clean, texts)), "encoding_format": "float"}
        vectors = read_answer(self._content(await self._post(body)), len(texts))
        if self._dim is None:
            self._dim = vectors.shape[1]
        if vectors.shape[1] != self._dim:
            raise EmbedderError(
                f"{self._url} gave vectors of {vectors.shape[1]} numbers where {self._dim} were expected: "
                f"another model than {self._model!r} answers there.",
                field="embedder.model",
                value=vectors.shape[1],
            )
        return vectors

    async def _post(self, body: dict[str, Any]) -> httpx.Response:
        try:
            return await self._client.post(self._url, json=body)
        except httpx.TimeoutException as error:
            raise EmbedderError(
                f"{self._url} did not answer in time. Raise embedder.timeout if it is only slow.",
                field="embedder.timeout",
                retry_after=RETRY_AFTER,
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
            raise EmbedderError(
                f"{self._url} cannot be reached: {error or type(error).__name__}. Is embedder.url right and "
                "the server up?",
                field="embedder.url",
                value=self._url,
                retry_after=RETRY_AFTER,
            ) from error

    def _content(self, response: httpx.Response) -> Any:
        if response.status_code in {401, 403}:
            raise EmbedderError(
                f"{self._url} refuses the key ({response.status_code}). Set embedder.api_key.",
                field="embedder.api_key",
            )
        if not response.is_success:
            busy = response.status_code == 429 or response.status_code >= 500
            raise EmbedderError(
                f"{self._url} answered {response.status_code} for model {self._model!r}: "
                f"{response.text[:300]}",
                field="embedder.model",
                value=response.status_code,
                retry_after=RETRY_AFTER if busy else None,
            )
        try:
            return response.json()
        except ValueError as error:
            raise EmbedderError(f"{self._url} answered no JSON: {response.text[:300]}") from error


def _clean(text: str) -> str:
    """Half a surrogate pair cannot be sent."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_answer(content: Any, count: int) -> Vectors:
    """Vectors of an answer to `count` texts, in the order of the texts, made length 1.

    Raises EmbedderError unless there is exactly one finite vector of the same length for each text.
    """
    try:
        items = sorted(content["data"], key=lambda item: int(item["index"]))
        places = [int(item["index"]) for item in items]
        rows = [_vector(item["embedding"]) for item in items]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise EmbedderError(f"The embedding server's answer is not in the OpenAI form: {error!r}") from error
    if places != list(range(count)):
        raise EmbedderError(f"The embedding server answered {len(rows)} vectors for {count} texts.")
    if len({row.size for row in rows}) != 1 or rows[0].size == 0:
        raise EmbedderError(
            f"The embedding server's vectors have lengths {sorted({row.size for row in rows})}."
        )
    return _unit(np.stack(rows))


def _vector(value: Any) -> NDArray[np.float64]:
    """A list of numbers, or base64 of little-endian float32. Raises ValueError or TypeError."""
    if isinstance(value, str):
        try:
            return np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float64)
        except binascii.Error as error:
            raise ValueError(f"broken base64: {error}") from error
    vector = np.asarray(value, np.float64)
    if vector.ndim != 1:
        raise ValueError(f"an embedding with {vector.ndim} dimensions")
    return vector


def _unit(rows: NDArray[np.float64]) -> Vectors:
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)):
        raise EmbedderError("The embedding server answered with numbers that are not finite.")
    if lengths.min() < SHORTEST:
        raise EmbedderError("The embedding server answered with a vector of zeros.")
    unit: Vectors = (rows / lengths).astype(np.float32)
    return unit
