"""POST /v1/responses."""

import time
from contextlib import aclosing
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from agentflow.api import sse
from agentflow.api.bodies import DoorRoute
from agentflow.api.listening import unless_gone
from agentflow.api.once import once
from agentflow.api.openai.answering import Answer, answered, bare_kind
from agentflow.api.openai.order import Order, ResponsesBody, responses_order
from agentflow.api.openai.response_events import events, finished, opened
from agentflow.protocols import Said
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute)


@router.post("/responses", response_model=None, summary="A response", responses=sse.TOO)
async def responses(
    body: ResponsesBody,
    request: Request,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """One answer; `previous_response_id` goes on after it. `store` and `background` change nothing: every turn is
    in the ledger, and this door waits for it.
    """
    services: Services = request.app.state.services
    order = responses_order(body, services.engine.capabilities)
    if not order.stream:
        whole = partial(_said, body, order, request, key=idempotency_key)
        return await (whole() if bare_kind(order, request) is None else once(request, whole))
    answer = await answered(order, request, key=idempotency_key)
    frames = sse.alive(events(answer, opened(answer.id, body, int(time.time()))))
    headers = {**sse.HEADERS, **answer.headers}
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


async def _said(body: ResponsesBody, order: Order, request: Request, *, key: str | None) -> Response:
    """The response in one piece."""
    answer = await answered(order, request, key=key)
    begun = opened(answer.id, body, int(time.time()))
    said = await unless_gone(request, _whole(answer))
    return JSONResponse(finished(begun, said), headers=answer.headers)


async def _whole(answer: Answer) -> Said:
    said = Said()
    async with aclosing(answer.pieces) as pieces:
        async for piece in pieces:
            said.hear(piece)
    return said
