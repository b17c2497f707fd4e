"""Runs: begun, waited for, listed, cancelled. Streams are in stream.py."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from agentflow.api.answers import of_run
from agentflow.api.once import key_of
from agentflow.api.protocol.threads import filled, owned
from agentflow.api.protocol.wire import (
    JSON,
    Given,
    ProtocolRoute,
    answer,
    body_uuid,
    described,
    detail,
    given,
    owner,
    raw,
    selected,
    services,
    shaped,
    uuid_of,
    who,
)
from agentflow.errors import BadInput, NotFound
from agentflow.records.protocol.accepting import Outdated
from agentflow.runs.encoding import encoded
from agentflow.runs.feed import Feed
from agentflow.runs.protocol import error_shown
from agentflow.runs.wanted import RunWanted, planned
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["runs"])
Status = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
KEEP_ALIVE = 5.0
"""Seconds of silence after which a byte is sent."""
BATCH = 100


class Cancelled(Given):
    thread_id: str | None = None
    run_ids: list[str] | None = Field(None, max_length=1000)
    status: Literal["pending", "running", "all"] | None = None


async def begun(
    request: Request, body: RunWanted, thread_id: str | None, *, streams: bool, key: str | None = None
) -> tuple[Json, Feed, dict[str, str]]:
    """Accept the run; it, its feed, and the headers that say where it is. A known key brings back its earlier run."""
    served, me = services(request), who(request)
    plan = partial(planned, served, body, me.tenant, me.user, thread_id, streams=streams, key=key)
    try:
        run, feed = await served.worker.submit(await plan(remembered=True))
    except Outdated:
        run, feed = await served.worker.submit(await plan())
    return run, feed, where(run, stateless=thread_id is None)


def is_open(run: Json) -> bool:
    """Whether the run has not ended."""
    return run["status"] in ("pending", "running")


def where(run: Json, *, stateless: bool) -> dict[str, str]:
    """Clients read both ids from Content-Location."""
    path = f"/threads/{run['thread_id']}/runs/{run['run_id']}"
    return {"Content-Location": f"/runs/{run['run_id']}" if stateless else path}


@router.post(
    "/threads/{thread_id}/runs",
    summary="Begin a run",
    response_model=None,
    openapi_extra=described(RunWanted),
)
async def create(request: Request, thread_id: str) -> Response:
    return await _created(request, uuid_of(thread_id, "thread_id"))


@router.post(
    "/runs", summary="Begin a run without a thread", response_model=None, openapi_extra=described(RunWanted)
)
async def create_stateless(request: Request) -> Response:
    return await _created(request, None)


async def _created(request: Request, thread_id: str | None) -> Response:
    body, key = await given(request, RunWanted), key_of(request)
    run, _, headers = await begun(request, body, thread_id, streams=True, key=key)
    return answer(run, headers=headers)


@router.post(
    "/runs/batch",
    summary="Begin several, each without a thread",
    response_model=None,
    openapi_extra=described(RunWanted, several=True),
)
async def batch(request: Request) -> Response:
    bodies = await raw(request)
    if not isinstance(bodies, list) or len(bodies) > BATCH:
        raise BadInput(f"The body is a list of at most {BATCH} runs.", field="body")
    shapes = [shaped(one if isinstance(one, dict) else {}, RunWanted) for one in bodies]
    served, me, key = services(request), who(request), key_of(request)
    keys = [None if key is None else f"{key}#{place}" for place in range(len(shapes))]
    plans = [
        await planned(served, one, me.tenant, me.user, None, streams=True, key=each)
        for one, each in zip(shapes, keys, strict=True)
    ]
    return answer([(await served.worker.submit(one))[0] for one in plans])


@router.post(
    "/threads/{thread_id}/runs/wait",
    summary="Run and wait for the values",
    response_model=None,
    openapi_extra=described(RunWanted),
)
async def wait(request: Request, thread_id: str) -> Response:
    return await _waited(request, uuid_of(thread_id, "thread_id"))


@router.post(
    "/runs/wait",
    summary="Run without a thread and wait for the values",
    response_model=None,
    openapi_extra=described(RunWanted),
)
async def wait_stateless(request: Request) -> Response:
    return await _waited(request, None)


async def _waited(request: Request, thread_id: str | None) -> Response:
    body = await given(request, RunWanted)
    run, feed, _ = await begun(request, body, thread_id, streams=False, key=key_of(request))
    path = f"/threads/{run['thread_id']}/runs/{run['run_id']}"
    headers = {"Content-Location": path, "Location": f"{path}/join"}
    if not is_open(run):
        return answer(await stored(request, run), headers=headers)
    return await told(request, run, feed, headers, cancels=body.on_disconnect == "cancel")


async def told(
    request: Request, run: Json, feed: Feed, headers: dict[str, str], *, cancels: bool = False
) -> Response:
    """The run's values as soon as there are any; blanks before them keep the connection alive."""
    if not cancels:
        try:
            async with asyncio.timeout(KEEP_ALIVE):
                await feed.ended()
            return answer(await result(request, run, feed), headers={**headers, **of_run(feed)})
        except TimeoutError:
            pass
    headers = {**headers, **of_run(feed)}
    return StreamingResponse(_patient(request, run, feed, cancels=cancels), headers=headers, media_type=JSON)


async def _patient(request: Request, run: Json, feed: Feed, *, cancels: bool) -> AsyncIterator[bytes]:
    ended = False
    try:
        while not feed.closed:
            yield b"\n"
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await feed.ended()
            except TimeoutError:
                continue
        ended = True
        yield encoded(await result(request, run, feed))
    finally:
        if cancels and not ended:
            give_up(request, run["run_id"])


def give_up(request: Request, run_id: str) -> None:
    """Nobody listens any more: the run is cancelled, though this request is gone."""
    served, tenant = services(request), who(request).tenant
    task = asyncio.create_task(served.worker.stop([run_id], "interrupt", tenant=tenant))
    served.beside.add(task)
    task.add_done_callback(served.beside.discard)


async def finished(request: Request, body: RunWanted, thread_id: str | None) -> Any:
    """Run to the end; values, or `__error__`. Honours the request's idempotency key."""
    thread = body_uuid(thread_id, "thread_id")
    run, feed, _ = await begun(request, body, thread, streams=False, key=key_of(request))
    return await outcome(request, run, feed)


async def outcome(request: Request, run: Json, feed: Feed) -> Any:
    """What a run comes to, once it has ended; or has come to, if its key was known and it had ended before."""
    if not is_open(run):
        return await stored(request, run)
    await feed.ended()
    return await result(request, run, feed)


async def result(request: Request, run: Json, feed: Feed) -> Any:
    """What an ended run has come to: values, or `__error__`."""
    if feed.error is not None:
        return {"__error__": error_shown(feed.error)}
    if feed.outcome.written and feed.outcome.values is not None:
        return feed.outcome.shown()
    return await thread_values(request, run["thread_id"])


async def stored(request: Request, run: Json) -> Any:
    """What a run came to that had ended before it was asked for again, whatever its thread has seen since."""
    me, served = who(request), services(request)
    found = await served.worker.ledger.find(run["run_id"], tenant=me.tenant, user=me.user)
    if found.error is not None:
        return {"__error__": {name: found.error.get(name) for name in ("error", "message")}}
    thread = await owned(request, run["thread_id"])
    (newest,) = await served.runs.of_thread(
        thread["thread_id"], tenant=me.tenant, user=me.user, status=None, limit=1, offset=0
    )
    if newest["run_id"] == run["run_id"]:
        return await thread_values(request, run["thread_id"])
    states = await served.states.history(
        thread, limit=1, before=None, metadata={"run_id": run["run_id"]}, checkpoint=None
    )
    return states[0]["values"] if states else await thread_values(request, run["thread_id"])


async def thread_values(request: Request, thread_id: str) -> Any:
    """The thread's values now; nothing where the thread is gone."""
    try:
        (thread,) = await filled(request, [await owned(request, thread_id)])
    except NotFound:
        return {}
    if thread["error"]:
        return {"__error__": thread["error"]}
    waiting = [one for found in thread["interrupts"].values() for one in found]
    return {**(thread["values"] or {}), **({"__interrupt__": waiting} if waiting else {})}


@router.get("/threads/{thread_id}/runs", summary="A thread's runs, newest first", response_model=None)
async def listed(
    request: Request,
    thread_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    status: Status | None = None,
    select: Annotated[list[str] | None, Query()] = None,
) -> Response:
    me, thread = who(request), await owned(request, thread_id)
    wanted = "error" if status == "timeout" else status
    found = await services(request).runs.of_thread(
        thread["thread_id"], tenant=me.tenant, user=me.user, status=wanted, limit=limit, offset=offset
    )
    return answer(selected(found, select))


async def owned_run(request: Request, thread_id: str | None, run_id: str) -> Json:
    """The caller's own run. Raises NotFound."""
    me = who(request)
    thread = None if thread_id is None else uuid_of(thread_id, "thread_id")
    return await services(request).runs.get(
        uuid_of(run_id, "run_id"), thread_id=thread, tenant=me.tenant, user=me.user
    )


@router.get("/threads/{thread_id}/runs/{run_id}", summary="One run", response_model=None)
async def get(request: Request, thread_id: str, run_id: str) -> Response:
    return answer(await owned_run(request, thread_id, run_id))


@router.delete(
    "/threads/{thread_id}/runs/{run_id}", summary="Remove an ended run", status_code=204, response_model=None
)
async def delete(request: Request, thread_id: str, run_id: str) -> Response:
    me = who(request)
    await services(request).runs.delete(
        uuid_of(run_id, "run_id"), thread_id=uuid_of(thread_id, "thread_id"), tenant=me.tenant, user=me.user
    )
    return Response(status_code=204)


@router.get("/threads/{thread_id}/runs/{run_id}/join", summary="Wait for a run's values", response_model=None)
async def join(
    request: Request, thread_id: str, run_id: str, *, cancel_on_disconnect: bool = False
) -> Response:
    run = await owned_run(request, thread_id, run_id)
    feed = services(request).worker.follow(run["run_id"], run["thread_id"], owner(request))
    headers = where(run, stateless=False)
    return await told(request, run, feed, headers, cancels=cancel_on_disconnect)


@router.post("/threads/{thread_id}/runs/{run_id}/cancel", summary="Stop a run", response_model=None)
async def cancel(
    request: Request,
    thread_id: str,
    run_id: str,
    *,
    wait: bool = False,
    action: Literal["interrupt", "rollback"] = "interrupt",
) -> Response:
    run = await owned_run(request, thread_id, run_id)
    served, tenant = services(request), who(request).tenant
    feed = served.worker.follow(run["run_id"], run["thread_id"], owner(request)) if wait else None
    if not await served.worker.stop([run["run_id"]], action, tenant=tenant):
        raise NotFound(f"Run {run_id} has ended; there is nothing to cancel.", field="run_id", value=run_id)
    if feed is None:
        return answer({}, 202)
    await feed.ended()
    return answer({})


@router.post(
    "/runs/cancel",
    summary="Stop several",
    status_code=204,
    response_model=None,
    openapi_extra=described(Cancelled),
)
async def cancel_many(request: Request, action: Literal["interrupt", "rollback"] = "interrupt") -> Response:
    body = await given(request, Cancelled)
    if body.run_ids is None and body.status is None:
        return detail(422, "Say which runs: run_ids with thread_id, or status.")
    me, served = who(request), services(request)
    found = await served.runs.open_ones(
        tenant=me.tenant,
        user=me.user,
        thread_id=body_uuid(body.thread_id, "thread_id"),
        ids=None if body.run_ids is None else [str(body_uuid(one, "run_ids")) for one in body.run_ids],
        status=None if body.status == "all" else body.status,
    )
    if not found:
        raise NotFound("None of these runs is open; there is nothing to cancel.", field="run_ids")
    await served.worker.stop(found, action, tenant=me.tenant)
    return Response(status_code=204)
