"""Runs as server-sent events: begun, joined, resumed; and all runs of a thread in one stream."""

from collections.abc import AsyncIterator, Iterable

from fastapi import APIRouter, Request
from starlette.responses import Response

from agentflow.api.answers import of_run
from agentflow.api.once import key_of
from agentflow.api.protocol.runs import (
    KEEP_ALIVE,
    begun,
    give_up,
    is_open,
    owned_run,
    stored,
    where,
)
from agentflow.api.protocol.threads import owned
from agentflow.api.protocol.wire import ProtocolRoute, described, given, owner, services, uuid_of
from agentflow.api.sse import HEADERS, Events
from agentflow.runs.events import Behind, Event, Stream, seq_of
from agentflow.runs.feed import Feed
from agentflow.runs.thread_stream import Part, number, place_of
from agentflow.runs.wanted import RunWanted
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["runs"])
HEARTBEAT = b": heartbeat\n\n"


@router.post(
    "/threads/{thread_id}/runs/stream",
    summary="Run, and stream its events",
    response_model=None,
    response_class=Events,
    openapi_extra=described(RunWanted),
)
async def stream(request: Request, thread_id: str) -> Response:
    return await _begun(request, uuid_of(thread_id, "thread_id"))


@router.post(
    "/runs/stream",
    summary="Run without a thread, and stream its events",
    response_model=None,
    response_class=Events,
    openapi_extra=described(RunWanted),
)
async def stream_stateless(request: Request) -> Response:
    return await _begun(request, None)


async def _begun(request: Request, thread_id: str | None) -> Response:
    body = await given(request, RunWanted)
    run, feed, headers = await begun(request, body, thread_id, streams=True, key=key_of(request))
    path = f"/threads/{run['thread_id']}/runs/{run['run_id']}/stream"
    cancels = body.on_disconnect == "cancel"
    if body.stream_resumable or run["run_id"] in services(request).worker.feeds:
        events = _events(request, feed, 0, ids=body.stream_resumable, cancels=cancels)
    else:
        events = _again(request, run, feed, cancels=cancels)
    return sse(events, {**headers, **of_run(feed), "Location": path})


async def _again(request: Request, run: Json, feed: Feed, *, cancels: bool) -> AsyncIterator[bytes]:
    """A run of an earlier request, which this process has no events of: what comes, or what it came to."""
    told = Stream(run["run_id"])
    told.add("metadata", {"run_id": run["run_id"], "attempt": 1})
    if is_open(run):
        yield framed(told.events, ids=False)
        async for chunk in _events(request, feed, 0, ids=False, cancels=cancels):
            yield chunk
        return
    values = await stored(request, run)
    failed = isinstance(values, dict) and values.get("__error__")
    told.add("error" if failed else "values", failed or values)
    yield framed(told.events, ids=False)


@router.get(
    "/threads/{thread_id}/runs/{run_id}/stream",
    summary="Join a run's events",
    response_model=None,
    response_class=Events,
)
async def joined(
    request: Request, thread_id: str, run_id: str, *, cancel_on_disconnect: bool = False
) -> Response:
    """Without Last-Event-ID what comes from now on; with it, of a resumable run, what came after that event."""
    run = await owned_run(request, thread_id, run_id)
    seen = request.headers.get("last-event-id")
    feed = services(request).worker.follow(run["run_id"], run["thread_id"], owner(request))
    path = f"/threads/{run['thread_id']}/runs/{run['run_id']}/stream"
    headers = {**where(run, stateless=False), "Location": path}
    resumable = bool(run["kwargs"].get("stream_resumable"))
    after = None if seen is None or not resumable else seq_of(seen)
    return sse(_events(request, feed, after, ids=resumable, cancels=cancel_on_disconnect), headers)


def sse(events: AsyncIterator[bytes], headers: dict[str, str]) -> Response:
    """A stream of server-sent events."""
    return Events(events, headers={**HEADERS, **headers})


async def _events(
    request: Request, feed: Feed, after: int | None, *, ids: bool, cancels: bool
) -> AsyncIterator[bytes]:
    """From a number on (None: from now), until the run's end is committed; a reader that is too slow is cut off."""
    ended = False
    following = services(request).worker.following
    try:
        async for events in following.events(feed, owner(request), after, idle=KEEP_ALIVE):
            yield framed(events, ids=ids) if events else HEARTBEAT
        ended = True
    except Behind:
        return
    finally:
        if cancels and not ended:
            give_up(request, feed.run_id)


@router.get(
    "/threads/{thread_id}/stream", summary="All runs of a thread", response_model=None, response_class=Events
)
async def thread_stream(request: Request, thread_id: str) -> Response:
    """From now on, wherever they run; with Last-Event-ID from that event on, with `-` from the beginning."""
    thread, seen = await owned(request, thread_id), request.headers.get("last-event-id")
    streams, me = services(request).thread_streams, owner(request)
    place = await streams.now(me, thread["thread_id"]) if seen is None else place_of(seen)
    return sse(_thread_events(streams.follow(me, thread["thread_id"], place, idle=KEEP_ALIVE)), {})


async def _thread_events(parts: AsyncIterator[Part | None]) -> AsyncIterator[bytes]:
    """Stays open across runs."""
    try:
        async for part in parts:
            if part is None:
                yield HEARTBEAT
            elif part.events:
                yield framed(
                    [one._replace(seq=number(part.run.place, one.seq)) for one in part.events], ids=True
                )
    except Behind:
        return


def framed(events: Iterable[Event], *, ids: bool) -> bytes:
    """Events as they go over the wire."""
    return b"".join(
        b"event: %s\ndata: %s\n%s\n"
        % (one.name.encode(), one.data, b"id: %s\n" % one.id.encode() if ids else b"")
        for one in events
    )
