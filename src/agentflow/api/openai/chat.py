"""POST /v1/chat/completions."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from agentflow.api import sse
from agentflow.api.bodies import DoorRoute
from agentflow.api.listening import unless_gone
from agentflow.api.once import once
from agentflow.api.openai import functions
from agentflow.api.openai.answering import Answer, answered, bare_kind
from agentflow.api.openai.errors import in_stream
from agentflow.api.openai.order import ChatBody, Order, chat_order
from agentflow.errors import AgentflowError
from agentflow.protocols import Piece, Said
from agentflow.turn import Json, Usage
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute)
NOTHING: Usage = {"prompt_tokens": 0, "completion_tokens": 0}


@router.post("/chat/completions", response_model=None, summary="A chat completion", responses=sse.TOO)
async def completions(
    body: ChatBody,
    request: Request,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """One answer. `model` is agentflow, agentflow/ROLE, or the base model's name.

    The thread is told from headers, `metadata.thread_id` or the transcript (docs/doors.md).
    """
    services: Services = request.app.state.services
    order = chat_order(body, services.engine.capabilities)
    older = bool(body.functions) and not body.tools
    if not order.stream:
        whole = partial(_said, order, request, older=older, key=idempotency_key)
        return await (whole() if bare_kind(order, request) is None else once(request, whole))
    answer = await answered(order, request, key=idempotency_key)
    wants_usage = bool((body.stream_options or {}).get("include_usage"))
    frames = sse.alive(_frames(answer, wants_usage=wants_usage, older=older))
    return StreamingResponse(
        frames, media_type="text/event-stream", headers={**sse.HEADERS, **answer.headers}
    )


async def _said(order: Order, request: Request, *, older: bool, key: str | None) -> Response:
    """The answer in one piece."""
    answer = await answered(order, request, key=key)
    said = await unless_gone(request, _whole(answer))
    return JSONResponse(_completion(answer, said, older=older), headers=answer.headers)


async def _whole(answer: Answer) -> Said:
    said = Said()
    async with aclosing(answer.pieces) as pieces:
        async for piece in pieces:
            said.hear(piece)
    return said


def _completion(answer: Answer, said: Said, *, older: bool) -> Json:
    calls = said.calls()
    message: Json = {
        "role": "assistant",
        "content": "".join(said.texts) or (None if calls else ""),
        "refusal": None,
    }
    if calls:
        message["tool_calls"] = calls
    finish = functions.finish(said.finish) if older else said.finish
    shown = functions.message(message) if older else message
    choice = {"index": 0, "message": shown, "logprobs": None, "finish_reason": finish}
    return {**_frame(answer, "chat.completion"), "choices": [choice], "usage": usage(said.usage or NOTHING)}


async def _frames(answer: Answer, *, wants_usage: bool, older: bool) -> AsyncGenerator[str, None]:
    """Role first, then words, then the reason it ended; usage where it is asked for, and [DONE].

    `older`: tool calls are told as function calls.
    """
    frame = _frame(answer, "chat.completion.chunk")
    last = Piece("")
    async with aclosing(answer.pieces) as pieces:
        try:
            yield _chunk(frame, {"role": "assistant", "content": ""})
            async for piece in pieces:
                last = piece
                if piece.text:
                    yield _chunk(frame, {"content": piece.text})
                if piece.tool_calls:
                    grown = {"tool_calls": list(piece.tool_calls)}
                    yield _chunk(frame, functions.message(grown) if older else grown)
        except AgentflowError as error:
            yield _data(in_stream(error))
            return
    yield _chunk(frame, {}, functions.finish(last.finish) if older else last.finish)
    if wants_usage:
        yield _data({**frame, "choices": [], "usage": usage(last.usage or NOTHING)})
    yield "data: [DONE]\n\n"


def usage(spent: Usage) -> Json:
    """Tokens in this door's words."""
    return {**spent, "total_tokens": spent["prompt_tokens"] + spent["completion_tokens"]}


def _frame(answer: Answer, kind: str) -> Json:
    return {"id": f"chatcmpl-{answer.id}", "object": kind, "created": int(time.time()), "model": answer.model}


def _chunk(frame: Json, delta: Json, finish: str | None = None) -> str:
    return _data(
        {**frame, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
    )


def _data(told: Json) -> str:
    return f"data: {json.dumps(told, ensure_ascii=False)}\n\n"
