"""`/v1/chat/completions` of the double, whole and streamed."""

import json
import time
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from agentflow.fakes.calls import called, deltas, structured
from agentflow.fakes.vllm.engine import DEAD, Double
from agentflow.fakes.vllm.refusal import Refusal, fields
from agentflow.fakes.voices import answer, clipped, tokens


class Chat:
    """What it says, `voices.answer` decides."""

    def __init__(self, engine: Double) -> None:
        self._engine = engine

    async def answer(self, request: Request) -> Response:
        body = await fields(request, "model", "messages")
        self._check(body)
        lora_id = self._engine.lora_of(body["model"])
        if self._engine.dead:
            raise Refusal(500, "InternalServerError", DEAD)
        if body.get("stream"):
            return StreamingResponse(self._stream(body, lora_id), media_type="text/event-stream")
        return await self._whole(request, body, lora_id)

    def _check(self, body: dict[str, Any]) -> None:
        if body.get("max_tokens", 1) > self._engine.options.max_model_len:
            raise Refusal(400, "BadRequestError", "max_tokens is too large", "max_tokens")
        if not 0 < body.get("top_p", 1.0) <= 1:
            raise Refusal(400, "BadRequestError", "top_p must be in (0, 1]", "top_p")

    async def _stream(self, body: dict[str, Any], lora_id: int | None) -> AsyncGenerator[str, None]:
        try:
            async with self._engine.admitted(lora_id, self._engine.folder_of(body["model"])):
                calls, words, finish = self._words(body, lora_id)
                yield _chunk(body, {"role": "assistant", "content": ""})
                for delta in deltas(calls):
                    yield _chunk(body, {"tool_calls": [delta]})
                async for word in self._engine.spoken(words):
                    yield _chunk(
                        body, {"reasoning" if self._engine.options.thinks_aloud else "content": word}
                    )
                yield _chunk(body, {}, finish)
        except Refusal as refusal:
            yield f"data: {bytes(refusal.response.body).decode()}\n\n"
        else:
            if (body.get("stream_options") or {}).get("include_usage"):
                yield _event(body, {"choices": [], "usage": _usage(body, words)})
        yield "data: [DONE]\n\n"

    async def _whole(self, request: Request, body: dict[str, Any], lora_id: int | None) -> Response:
        async with self._engine.admitted(lora_id, self._engine.folder_of(body["model"])):
            calls, words, finish = self._words(body, lora_id)
            said = "".join([word async for word in self._engine.spoken(words, until=request.is_disconnected)])
        message = {"role": "assistant", "content": said, "reasoning": None, "tool_calls": calls}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return JSONResponse(
            _frame(body, "chat.completion") | {"choices": [choice], "usage": _usage(body, words)}
        )

    def _words(
        self, body: dict[str, Any], lora_id: int | None
    ) -> tuple[list[dict[str, Any]], list[str], str]:
        voice = self._engine.voice(lora_id)
        calls = called(body["messages"], body.get("tools") or [], body.get("tool_choice"))
        if calls:
            return calls, [], "tool_calls"
        text = structured(answer(voice, body["messages"]), body.get("response_format"))
        stop = body.get("stop") or []
        limit = body.get("max_tokens") or self._engine.options.max_model_len
        return [], *clipped(text, max_tokens=limit, stop=[stop] if isinstance(stop, str) else stop)


def _usage(body: dict[str, Any], words: list[str]) -> dict[str, int]:
    asked = sum(len(tokens(message["content"])) for message in body["messages"])
    return {"prompt_tokens": asked, "completion_tokens": len(words), "total_tokens": asked + len(words)}


def _frame(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-double", "object": kind, "created": int(time.time()), "model": body["model"]}


def _event(body: dict[str, Any], fields: dict[str, Any]) -> str:
    return f"data: {json.dumps(_frame(body, 'chat.completion.chunk') | fields)}\n\n"


def _chunk(body: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> str:
    return _event(body, {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
