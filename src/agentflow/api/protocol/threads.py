"""Threads: begun, found, changed, copied, removed."""

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from agentflow.api.memory import forgotten
from agentflow.api.protocol.assistants import graph_known
from agentflow.api.protocol.extracts import extracted
from agentflow.api.protocol.wire import (
    Given,
    Page,
    ProtocolRoute,
    answer,
    body_uuid,
    described,
    given,
    optional,
    owner,
    paged,
    services,
    uuid_of,
    who,
)
from agentflow.errors import BadInput
from agentflow.records.memory.forget import Selector
from agentflow.records.memory.rights import Owner as Rightful
from agentflow.records.protocol.threads import taken
from agentflow.runs.registry import OWN, assistant_of
from agentflow.runs.wanted import small
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["threads"])
Status = Literal["idle", "busy", "interrupted", "error"]
Sort = Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"]
STEPS = 200
IDS = 1000


class Ttl(Given):
    ttl: float = Field(gt=0, le=60 * 24 * 3650)
    strategy: Literal["delete", "keep_latest"] = "delete"


class NewThread(Given):
    thread_id: str | None = None
    metadata: Json | None = None
    if_exists: Literal["raise", "do_nothing"] = "raise"
    ttl: Ttl | float | None = None
    graph_id: str | None = None
    supersteps: list[Json] | None = Field(None, max_length=STEPS)


class ChangedThread(Given):
    metadata: Json | None = None
    ttl: Ttl | float | None = None


class ThreadsWanted(Page):
    ids: list[str] | None = Field(None, max_length=IDS)
    metadata: Json | None = None
    values: Json | None = None
    status: Status | None = None
    sort_by: Sort | None = None
    sort_order: Literal["asc", "desc"] = "desc"
    select: list[str] | None = None
    extract: dict[str, str] | None = None


class Prune(Given):
    thread_ids: list[str] = Field(max_length=IDS)
    strategy: Literal["delete", "keep_latest"] = "delete"


async def owned(request: Request, thread_id: str) -> Json:
    """The caller's own thread. Raises NotFound."""
    me = who(request)
    found = await services(request).threads.get(
        uuid_of(thread_id, "thread_id"), tenant=me.tenant, user=me.user
    )
    return {**found, "tenant": me.tenant, "user": me.user}


async def filled(request: Request, threads: Sequence[Json]) -> list[Json]:
    """Threads as clients see them: those of our own graph with their messages."""
    for one in threads:
        one.pop("tenant", None)
        one.pop("user", None)
    ours = [one for one in threads if (one["metadata"] or {}).get("graph_id", OWN) == OWN]
    if ours:
        await services(request).conversation.fill_threads(owner(request), ours)
    return list(threads)


def lifetime(ttl: Ttl | float | None) -> tuple[float | None, str]:
    """Minutes, and what happens then."""
    if isinstance(ttl, Ttl):
        return ttl.ttl, ttl.strategy
    if ttl is not None and not 0 < ttl <= 60 * 24 * 3650:
        raise BadInput("ttl is in minutes, above 0 and at most ten years.", field="ttl", value=ttl)
    return ttl, "delete"


@router.post(
    "/threads",
    summary="Begin a thread",
    response_model=None,
    openapi_extra=described(NewThread, needed=False),
)
async def create(request: Request) -> Response:
    body = await optional(request, NewThread)
    me, served = who(request), services(request)
    thread_id = body_uuid(body.thread_id, "thread_id")
    minutes, on_expiry = lifetime(body.ttl)
    meta = small(body.metadata)
    graph = graph_known(request, body.graph_id or meta.get("graph_id") if body.supersteps else body.graph_id)
    if graph is not None:
        meta = {**meta, "graph_id": graph, "assistant_id": assistant_of(graph)}
    made = await served.threads.create(
        tenant=me.tenant, user=me.user, thread_id=thread_id, meta=meta, ttl=minutes, on_expiry=on_expiry
    )
    if made is None and body.if_exists == "raise":
        raise taken(str(thread_id))
    if made is not None and body.supersteps:
        await served.states.write_all({**made, "tenant": me.tenant, "user": me.user}, body.supersteps)
        await note_state(request, {**made, "tenant": me.tenant, "user": me.user})
    if made is None or body.supersteps:
        made = await owned(request, made["thread_id"] if made else str(thread_id))
    return answer((await filled(request, [made]))[0])


async def note_state(request: Request, thread: Json) -> None:
    """After a change outside of runs, the thread's record says what its checkpoints say."""
    changed = await services(request).states.changed(thread)
    await services(request).threads.set_state(
        thread["thread_id"], tenant=thread["tenant"], user=thread["user"], status=changed.status,
        state=changed.state, interrupts=changed.interrupts, meta={},
    )  # fmt: skip


@router.post(
    "/threads/search",
    summary="Find threads",
    response_model=None,
    openapi_extra=described(ThreadsWanted, needed=False),
)
async def search(request: Request) -> Response:
    body = await optional(request, ThreadsWanted)
    me, found = who(request), services(request).threads
    narrowed = narrowing(body)
    items = await found.search(
        narrowed, tenant=me.tenant, user=me.user, sort_by=body.sort_by or "created_at",
        descending=body.sort_order == "desc", limit=body.limit, offset=body.offset,
    )  # fmt: skip
    total = await found.count(narrowed, tenant=me.tenant, user=me.user)
    if not body.select or body.extract or any(one.partition(".")[0] == "values" for one in body.select):
        items = await filled(request, items)
    if body.extract:
        items = [{**one, "extracted": extracted(one, body.extract)} for one in items]
    return paged(items, total, body, body.select and [*body.select, *(["extracted"] if body.extract else ())])


@router.post(
    "/threads/count",
    summary="How many there are",
    response_model=None,
    openapi_extra=described(ThreadsWanted, needed=False),
)
async def count(request: Request) -> Response:
    body = await optional(request, ThreadsWanted)
    me = who(request)
    return answer(await services(request).threads.count(narrowing(body), tenant=me.tenant, user=me.user))


def narrowing(body: ThreadsWanted) -> Json:
    ids = None if body.ids is None else [str(body_uuid(one, "ids")) for one in body.ids]
    return {"ids": ids, "meta": body.metadata or {}, "state": body.values, "status": body.status}


@router.post(
    "/threads/prune",
    summary="Remove threads, or all but their last state",
    response_model=None,
    openapi_extra=described(Prune),
)
async def prune(request: Request) -> Response:
    body = await given(request, Prune)
    me, served = who(request), services(request)
    wanted = [str(body_uuid(one, "thread_ids")) for one in body.thread_ids]
    known = await served.threads.search(
        {"ids": wanted},
        tenant=me.tenant,
        user=me.user,
        sort_by="thread_id",
        descending=False,
        limit=IDS,
        offset=0,
    )
    idle = [one["thread_id"] for one in known if one["status"] != "busy"]
    if body.strategy == "keep_latest":
        await served.checkpoints.keep_latest(owner(request), idle)
    else:
        for thread_id in idle:
            await _forget(request, thread_id)
    return answer({"pruned_count": len(idle)})


@router.get("/threads/{thread_id}", summary="One thread", response_model=None)
async def get(request: Request, thread_id: str) -> Response:
    return answer((await filled(request, [await owned(request, thread_id)]))[0])


@router.patch(
    "/threads/{thread_id}/state",
    summary="Merge into its metadata, as older clients ask for it",
    response_model=None,
    openapi_extra=described(ChangedThread),
)
@router.patch(
    "/threads/{thread_id}",
    summary="Merge into its metadata",
    response_model=None,
    openapi_extra=described(ChangedThread),
)
async def update(request: Request, thread_id: str) -> Response:
    body = await given(request, ChangedThread)
    me = who(request)
    minutes, on_expiry = lifetime(body.ttl)
    changed = await services(request).threads.patch(
        uuid_of(thread_id, "thread_id"), tenant=me.tenant, user=me.user, meta=small(body.metadata), ttl=minutes,
        on_expiry=on_expiry if minutes is not None else None,
    )  # fmt: skip
    return answer((await filled(request, [changed]))[0])


@router.delete(
    "/threads/{thread_id}", summary="Remove it with all that was said", status_code=204, response_model=None
)
async def delete(request: Request, thread_id: str) -> Response:
    thread = await owned(request, thread_id)
    served, me = services(request), who(request)
    working = await served.runs.open_ones(tenant=me.tenant, user=me.user, thread_id=thread["thread_id"])
    await served.worker.stop(working, "interrupt", tenant=me.tenant)
    await _forget(request, thread["thread_id"])
    return Response(status_code=204)


async def _forget(request: Request, thread_id: str) -> None:
    """The thread with its messages, checkpoints and memories, and checkpoints that a run has written meanwhile."""
    me = who(request)
    chosen = Selector("thread", thread_id)
    await forgotten(request.app.state.services, Rightful(me.tenant, me.user), chosen, preview=False)
    await services(request).checkpoints.drop_thread(owner(request), thread_id)


@router.post("/threads/{thread_id}/copy", summary="The same thread again", response_model=None)
async def copy(request: Request, thread_id: str) -> Response:
    me, served = who(request), services(request)
    old = uuid_of(thread_id, "thread_id")
    made = await served.threads.copy(old, tenant=me.tenant, user=me.user)
    await served.checkpoints.copy(owner(request), old, made["thread_id"])
    return answer((await filled(request, [made]))[0])
