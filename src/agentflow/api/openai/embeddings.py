"""POST /v1/embeddings: the embedder that memory uses, for whoever else needs vectors."""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from agentflow.api.bodies import DoorRoute
from agentflow.errors import BadInput
from agentflow.protocols import Vectors
from agentflow.retrieval.pieces import tokens
from agentflow.turn import Json
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute)
MOST = 2048


class EmbeddingsBody(BaseModel):
    """Texts to embed. There is one embedder: `model` is repeated, not looked at."""

    input: str | list[str] | list[int] | list[list[int]]
    model: str = "agentflow"
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None


@router.post("/embeddings", summary="Vectors of texts")
async def embeddings(body: EmbeddingsBody, request: Request) -> Json:
    """Unit vectors; fewer `dimensions` are the first ones at length 1 again, which costs some meaning."""
    services: Services = request.app.state.services
    texts = _texts(body.input)
    size = services.embedder.dim
    if (body.dimensions or 0) > size:
        raise BadInput(
            f"dimensions is {body.dimensions}; the embedder has {size}.",
            field="dimensions",
            value=body.dimensions,
        )
    vectors = shortened(await services.embedder.embed(texts), body.dimensions or size)
    spent = sum(tokens(text) for text in texts)
    coded = _base64 if body.encoding_format == "base64" else _floats
    rows = [
        {"object": "embedding", "index": index, "embedding": coded(row)} for index, row in enumerate(vectors)
    ]
    usage = {"prompt_tokens": spent, "total_tokens": spent}
    return {"object": "list", "data": rows, "model": body.model, "usage": usage}


def shortened(vectors: Vectors, size: int) -> Vectors:
    """The first `size` values of each row, float32 [n, size], of length 1 again."""
    cut = vectors[:, :size].astype(np.float32)
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    whole: Vectors = (cut / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    return whole


def _texts(given: Any) -> list[str]:
    texts: list[Any] = [given] if isinstance(given, str) else given
    if not texts or len(texts) > MOST:
        raise BadInput(f"input holds {len(texts)} texts; 1 to {MOST} are read at once.", field="input")
    for text in texts:
        if not isinstance(text, str):
            raise BadInput(
                "input holds token numbers of another model; send text (LangChain: check_embedding_ctx_length=False).",
                field="input",
            )
        if not text:
            raise BadInput("input holds an empty text.", field="input")
    return texts


def _base64(row: Vectors) -> str:
    """Float32, little-endian."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _floats(row: Vectors) -> list[float]:
    values: list[float] = row.tolist()
    return values
