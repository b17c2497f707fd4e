"""POST /v1/responses."""

import time
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from agentflow.api import sse
from agentflow.api.bodies import DoorRoute
from agentflow.api.listening import unless_gone
from agentflow.api.openai.answering import Answer, answered
from agentflow.api.openai.order import ResponsesBody, responses_order
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
    answer = await answered(order, request, key=idempotency_key)
    begun = opened(answer.id, body, int(time.time()))
    if order.stream:
        frames = sse.alive(events(answer, begun))
        headers = {**sse.HEADERS, **answer.headers}
        return StreamingResponse(frames, media_type="text/event-stream", headers=headers)
    said = await unless_gone(request, _whole(answer))
    return JSONResponse(finished(begun, said), headers=answer.headers)


async def _whole(answer: Answer) -> Said:
    said = Said()
    async with aclosing(answer.pieces) as pieces:
        async for piece in pieces:
            said.hear(piece)
    return said
