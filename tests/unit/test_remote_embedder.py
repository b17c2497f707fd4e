"""A remote embedder and all that a server can do to it."""

import base64
import json
import socket

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.embedders.remote import RemoteEmbedder, read_answer
from agentflow.errors import EmbedderError


def answer_of(*vectors):
    return {"data": [{"index": at, "embedding": vector} for at, vector in enumerate(vectors)]}


def embedder_of(answer, **options):
    """An embedder whose server is the function `answer(request)`."""
    options = {"model": "m", "transport": httpx.MockTransport(answer)} | options
    return RemoteEmbedder("http://here:1/v1/", **options)


def says(status=200, **reply):
    return lambda _: httpx.Response(status, **reply)


async def test_the_request_is_in_the_openai_form():
    seen = []

    def answer(request):
        seen.append((str(request.url), request.headers["authorization"], json.loads(request.content)))
        return httpx.Response(200, json=answer_of([3, 4]))

    await embedder_of(answer, api_key="secret").embed(["a"])
    body = {"model": "m", "input": ["a"], "encoding_format": "float"}
    assert seen == [("http://here:1/v1/embeddings", "Bearer secret", body)]


async def test_many_texts_go_in_batches():
    sizes = []

    def answer(request):
        sizes.append(len(json.loads(request.content)["input"]))
        return httpx.Response(200, json=answer_of(*[[1, 0]] * sizes[-1]))

    assert (await embedder_of(answer, batch=2).embed(list("abcde"))).shape == (5, 2)
    assert sizes == [2, 2, 1]


async def test_the_dimension_is_learned_once():
    embedder = embedder_of(says(json=answer_of([1, 0, 0])))
    await embedder.open()
    assert (embedder.dim, embedder.id) == (3, "remote/m/3")


async def test_a_server_of_another_dimension_is_another_model():
    embedder = embedder_of(says(json=answer_of([1, 0, 0])), dim=4)
    with pytest.raises(EmbedderError, match="3 numbers where 4 were expected"):
        await embedder.embed(["a"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (says(401), "refuses the key .401.. Set embedder.api_key"),
        (says(404, text="no such model"), "answered 404 for model 'm': no such model"),
        (says(500, text="out of memory"), "answered 500 .*out of memory"),
        (says(text="<html>"), "answered no JSON: <html>"),
        (says(json={"data": None}), "not in the OpenAI form"),
        (says(json=["x"]), "not in the OpenAI form"),
        (says(json=answer_of(["x"])), "not in the OpenAI form"),
        (says(json=answer_of([[1.0]])), "not in the OpenAI form"),
        (says(json=answer_of("***")), "broken base64"),
        (says(json=answer_of("AAAA")), "not in the OpenAI form"),
        (says(json={"data": []}), "0 vectors for 1 texts"),
        (says(json=answer_of([1.0], [1.0])), "2 vectors for 1 texts"),
        (says(json=answer_of([])), r"lengths \[0\]"),
        (says(json=answer_of([0.0, 0.0])), "a vector of zeros"),
        (says(text='{"data": [{"index": 0, "embedding": [NaN, 1]}]}'), "not finite"),
        (says(text='{"data": [{"index": 0, "embedding": [1e308, 1e308]}]}'), "not finite"),
    ],
)
async def test_every_odd_answer_is_an_embedder_error_that_says_it(answer, message):
    with pytest.raises(EmbedderError, match=message):
        await embedder_of(answer).embed(["a"])


@pytest.mark.parametrize(("status", "retry_after"), [(429, 2.0), (503, 2.0), (400, None)])
async def test_only_a_busy_server_is_worth_another_try(status, retry_after):
    with pytest.raises(EmbedderError) as refusal:
        await embedder_of(says(status)).embed(["a"])
    assert refusal.value.retry_after == retry_after


async def test_a_server_that_is_down_is_named():
    def down(_):
        raise httpx.ConnectError("connection refused")

    with pytest.raises(
        EmbedderError, match=r"http://here:1/v1/embeddings cannot be reached: connection refused"
    ):
        await embedder_of(down).embed(["a"])


async def test_a_slow_server_is_told_from_one_that_is_down():
    def slow(_):
        raise httpx.ReadTimeout("late")

    with pytest.raises(EmbedderError, match="did not answer in time") as refusal:
        await embedder_of(slow).embed(["a"])
    assert refusal.value.field == "embedder.timeout"


async def test_a_real_silence_ends_at_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        embedder = RemoteEmbedder(f"http://127.0.0.1:{silent.getsockname()[1]}", model="m", timeout=0.2)
        with pytest.raises(EmbedderError, match="did not answer in time"):
            await embedder.embed(["a"])
        await embedder.close()


@given(st.lists(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_both_forms_of_an_answer_say_the_same(vectors):
    coded = [base64.b64encode(np.array(v, "<f4").tobytes()).decode() for v in vectors]
    if min(np.linalg.norm(v) for v in vectors) < 1e-3:
        return
    plain, packed = (read_answer(answer_of(*form), len(vectors)) for form in (vectors, coded))
    assert np.array_equal(plain, packed)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["data", "index", "embedding"]), inner)
        ),
    )
)
def test_no_answer_breaks_the_reader(content):
    try:
        vectors = read_answer(content, 1)
    except EmbedderError:
        return
    assert vectors.shape[0] == 1
