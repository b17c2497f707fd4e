"""Whoever refuses under /v1, its clients see the error they know."""

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from agentflow.api.openai.errors import InTheirShape, in_stream
from agentflow.errors import BadInput, EngineDown


async def refused(response, path: str = "/v1/chat/completions") -> httpx.Response:
    transport = httpx.ASGITransport(InTheirShape(response))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("status", "told", "shown", "kind", "code"),
    [
        (401, {"error": "Unauthorized", "message": "m"}, 401, "authentication_error", "unauthorized"),
        (403, {"error": "Forbidden", "message": "m"}, 403, "permission_error", "forbidden"),
        (
            404,
            {"error": "NotFound", "message": "m", "field": "model"},
            404,
            "invalid_request_error",
            "model_not_found",
        ),
        (404, {"error": "HTTP", "message": "m"}, 404, "invalid_request_error", "not_found"),
        (413, {"error": "TooLarge", "message": "m"}, 413, "invalid_request_error", "too_large"),
        (422, {"error": "BadInput", "message": "m"}, 400, "invalid_request_error", "bad_input"),
        (429, {"error": "TooMany", "message": "m"}, 429, "rate_limit_error", "too_many"),
        (503, {"error": "EngineDown", "message": "m"}, 503, "server_error", "engine_down"),
    ],
)
async def test_an_error_is_in_openais_shape(status, told, shown, kind, code) -> None:
    answer = await refused(JSONResponse(told, status, {"Retry-After": "3"}))
    error = {"message": "m", "type": kind, "param": told.get("field"), "code": code}
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (
        shown,
        {"error": error},
        "3",
    )


async def test_even_plain_text_becomes_an_error_of_theirs() -> None:
    answer = await refused(PlainTextResponse("Bad Gateway", 502))
    assert answer.json()["error"]["message"] == "Bad Gateway"


async def test_answers_and_other_doors_are_left_alone() -> None:
    assert (await refused(JSONResponse({"a": 1}))).json() == {"a": 1}
    assert (await refused(JSONResponse({"error": "X"}, 404), "/invoke")).json() == {"error": "X"}


def test_in_a_stream_the_status_is_told_by_the_type() -> None:
    assert in_stream(EngineDown("gone"))["error"]["type"] == "server_error"
    assert in_stream(BadInput("wrong", field="n"))["error"] == {
        "message": "wrong", "type": "invalid_request_error", "param": "n", "code": "bad_input",
    }  # fmt: skip
