"""Runs: begun, waited for, listed, cancelled. Streams are in stream.py."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from agentflow.api.protocol.assistants import assistant
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
    small,
    uuid_of,
    who,
)
from agentflow.errors import BadInput, NotFound
from agentflow.records.runs import NewRun
from agentflow.runs.conversation import said_last
from agentflow.runs.encoding import encoded
from agentflow.runs.feed import Feed
from agentflow.runs.protocol import error_shown
from agentflow.runs.registry import OWN
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["runs"])
Mode = Literal[
    "values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events"
]
Status = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
KEEP_ALIVE = 5.0
"""Seconds of silence after which a byte is sent."""
BATCH = 100
DAY = 24 * 3600


class RunWanted(Given):
    assistant_id: str = Field(min_length=1, max_length=256)
    input: Any = None
    command: Json | None = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    checkpoint: Json | None = None
    checkpoint_id: str | None = None
    stream_mode: Mode | list[Mode] | None = None
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    interrupt_before: Literal["*"] | list[str] | None = None
    interrupt_after: Literal["*"] | list[str] | None = None
    multitask_strategy: Literal["enqueue", "reject", "interrupt", "rollback"] = "enqueue"
    if_not_exists: Literal["reject", "create"] = "reject"
    on_disconnect: Literal["continue", "cancel"] = "continue"
    on_completion: Literal["delete", "keep"] = "delete"
    after_seconds: float = Field(0, ge=0, le=30 * DAY)
    webhook: str | None = Field(None, max_length=2048)
    durability: Literal["sync", "async", "exit"] | None = None


class Cancelled(Given):
    thread_id: str | None = None
    run_ids: list[str] | None = Field(None, max_length=1000)
    status: Literal["pending", "running", "all"] | None = None


def modes_of(body: RunWanted, *, streams: bool) -> list[str]:
    """The modes whose events shall be told; a run that is only waited for needs none."""
    if body.stream_mode is None:
        return ["values"] if streams else []
    return list(body.stream_mode) if isinstance(body.stream_mode, list) else [body.stream_mode]


async def planned(request: Request, body: RunWanted, thread_id: str | None, *, streams: bool) -> NewRun:
    """What is asked for as a run to be accepted. Raises NotFound and BadInput."""
    chosen = await _assistant(request, body.assistant_id)
    me = who(request)
    work = _work(body, chosen, stateless=thread_id is None, streams=streams)
    new = NewRun(
        graph=chosen["graph_id"],
        assistant_id=chosen["assistant_id"],
        work=work,
        tenant=me.tenant,
        user=me.user,
        thread_id=thread_id,
        create=body.if_not_exists == "create",
        meta=small(body.metadata),
        thread_meta={"graph_id": chosen["graph_id"], "assistant_id": chosen["assistant_id"]},
        multitask=body.multitask_strategy,
        after=body.after_seconds,
        watched=True,
    )
    return _as_turn(new) if chosen["graph_id"] == OWN else new


async def _assistant(request: Request, name: str) -> Json:
    """As in a path, but an unknown one in a body is bad input. Raises BadInput."""
    try:
        return await assistant(request, name)
    except NotFound as error:
        raise BadInput(error.message, field="assistant_id", value=name) from None


def _work(body: RunWanted, chosen: Json, *, stateless: bool, streams: bool) -> Json:
    config = body.config or {}
    if body.context and config.get("configurable"):
        raise BadInput("Give settings in context or in config.configurable, not in both.", field="context")
    configurable = {**(chosen["config"].get("configurable") or {}), **(config.get("configurable") or {})}
    place = dict(body.checkpoint or {})
    if body.checkpoint_id:
        place["checkpoint_id"] = body.checkpoint_id
    work = {
        "assistant_id": chosen["assistant_id"],
        "input": body.input,
        "command": body.command,
        "config": {**chosen["config"], **config, "configurable": configurable},
        "context": {**chosen["context"], **(body.context or {})},
        "metadata": body.metadata,
        "checkpoint": {key: place[key] for key in ("checkpoint_id", "checkpoint_ns") if place.get(key)},
        "stream_mode": modes_of(body, streams=streams),
        "stream_subgraphs": body.stream_subgraphs,
        "stream_resumable": body.stream_resumable,
        "interrupt_before": body.interrupt_before,
        "interrupt_after": body.interrupt_after,
        "on_completion": body.on_completion if stateless else None,
        "webhook": body.webhook,
        "durability": body.durability or ("exit" if stateless else None),
    }
    return {key: value for key, value in work.items() if value or key == "input"}


def _as_turn(new: NewRun) -> NewRun:
    """A run of our own graph is a turn: its message goes to the ledger. Raises BadInput."""
    text, meta, role = said_last(new.work.get("input"))
    if not text.strip():
        raise BadInput("The message is empty; say something.", field="input.messages")
    return replace(new, text=text, message_meta=meta, wanted_role=role)


async def begun(
    request: Request, body: RunWanted, thread_id: str | None, *, streams: bool
) -> tuple[Json, Feed, dict[str, str]]:
    """Accept the run; it, its feed, and the headers that say where it is."""
    new = await planned(request, body, thread_id, streams=streams)
    run, feed = await services(request).worker.submit(new)
    return run, feed, where(run, stateless=thread_id is None)


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
    run, _, headers = await begun(request, await given(request, RunWanted), thread_id, streams=True)
    return answer(run, headers=headers)


@router.post("/runs/batch", summary="Begin several, each without a thread", response_model=None)
async def batch(request: Request) -> Response:
    bodies = await raw(request)
    if not isinstance(bodies, list) or len(bodies) > BATCH:
        raise BadInput(f"The body is a list of at most {BATCH} runs.", field="body")
    shapes = [shaped(one if isinstance(one, dict) else {}, RunWanted) for one in bodies]
    plans = [await planned(request, one, None, streams=True) for one in shapes]
    worker = services(request).worker
    return answer([(await worker.submit(one))[0] for one in plans])


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
    run, feed, headers = await begun(request, body, thread_id, streams=False)
    path = f"/threads/{run['thread_id']}/runs/{run['run_id']}"
    headers = {"Content-Location": path, "Location": f"{path}/join"}
    return await told(request, run, feed, headers, cancels=body.on_disconnect == "cancel")


async def told(
    request: Request, run: Json, feed: Feed, headers: dict[str, str], *, cancels: bool = False
) -> Response:
    """The run's values as soon as there are any; blanks before them keep the connection alive."""
    if not cancels:
        try:
            async with asyncio.timeout(KEEP_ALIVE):
                await feed.ended()
            return answer(await result(request, run, feed), headers=headers)
        except TimeoutError:
            pass
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


async def result(request: Request, run: Json, feed: Feed) -> Any:
    """What an ended run has come to: values, or `__error__`."""
    if feed.error is not None:
        return {"__error__": error_shown(feed.error)}
    if feed.outcome.written and feed.outcome.values is not None:
        return feed.outcome.shown()
    return await thread_values(request, run["thread_id"])


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
