"""What a thread's graph holds: now, then, changed."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from agentflow.api.protocol.threads import note_state, owned
from agentflow.api.protocol.wire import (
    Given,
    ProtocolRoute,
    answer,
    described,
    given,
    optional,
    selected,
    services,
    uuid_of,
)
from agentflow.errors import Busy
from agentflow.runs.wanted import Checkpoint
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["threads"])


class Place(Given):
    checkpoint: Checkpoint = Field(default_factory=dict)
    subgraphs: bool = False


class Update(Given):
    values: Any = None
    as_node: str | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_id: str | None = None


class HistoryWanted(Given):
    limit: int = Field(1, ge=1, le=1000)
    before: Checkpoint | str | None = None
    metadata: Json | None = None
    checkpoint: Checkpoint | None = None
    select: list[str] | None = Field(None, max_length=64)


@router.get("/threads/{thread_id}/state", summary="Its state now", response_model=None)
async def state(request: Request, thread_id: str, *, subgraphs: bool = False) -> Response:
    return answer(await services(request).states.get(await owned(request, thread_id), subgraphs=subgraphs))


@router.get("/threads/{thread_id}/state/{checkpoint_id}", summary="Its state then", response_model=None)
async def state_at(
    request: Request, thread_id: str, checkpoint_id: str, *, subgraphs: bool = False
) -> Response:
    thread = await owned(request, thread_id)
    at = {"checkpoint_id": uuid_of(checkpoint_id, "checkpoint_id")}
    return answer(await services(request).states.get(thread, checkpoint=at, subgraphs=subgraphs))


@router.post(
    "/threads/{thread_id}/state/checkpoint",
    summary="Its state then",
    response_model=None,
    openapi_extra=described(Place),
)
async def state_at_checkpoint(request: Request, thread_id: str) -> Response:
    body = await given(request, Place)
    thread = await owned(request, thread_id)
    found = await services(request).states.get(thread, checkpoint=body.checkpoint, subgraphs=body.subgraphs)
    return answer(found)


@router.post(
    "/threads/{thread_id}/state", summary="Change it", response_model=None, openapi_extra=described(Update)
)
async def change(request: Request, thread_id: str) -> Response:
    body = await given(request, Update)
    thread = await owned(request, thread_id)
    if thread["status"] == "busy":
        raise Busy(
            "A run of this thread is open; wait for it, or cancel it.", field="thread_id", value=thread_id
        )
    at = body.checkpoint or ({"checkpoint_id": body.checkpoint_id} if body.checkpoint_id else None)
    written = await services(request).states.update(thread, body.values, as_node=body.as_node, checkpoint=at)
    await note_state(request, thread)
    return answer(written)


@router.post(
    "/threads/{thread_id}/history",
    summary="Its states, newest first",
    response_model=None,
    openapi_extra=described(HistoryWanted, needed=False),
)
async def history(request: Request, thread_id: str) -> Response:
    return await _history(request, thread_id, await optional(request, HistoryWanted))


@router.get("/threads/{thread_id}/history", summary="Its states, newest first", response_model=None)
async def history_by_query(
    request: Request,
    thread_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1,
    before: str | None = None,
) -> Response:
    return await _history(request, thread_id, HistoryWanted(limit=limit, before=before))


async def _history(request: Request, thread_id: str, body: HistoryWanted) -> Response:
    before = {"checkpoint_id": body.before} if isinstance(body.before, str) else body.before
    found = await services(request).states.history(
        await owned(request, thread_id), limit=body.limit, before=before, metadata=body.metadata,
        checkpoint=body.checkpoint,
    )  # fmt: skip
    return answer(selected(found, body.select))
