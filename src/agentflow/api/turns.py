"""GET /turns/{id}: what became of a turn that nobody waited for."""

import asyncio
import contextlib
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from agentflow.api.bodies import DoorRoute
from agentflow.api.keys import Caller, caller
from agentflow.errors import AgentflowError
from agentflow.protocols import RunRecord
from agentflow.records.callbacks import told
from agentflow.runs.wakes import woken
from agentflow.runs.worker import PATIENCE
from agentflow.turn import Json
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute)
LONGEST = 280.0
"""Seconds that a caller may wait: builders and proxies hang up after 300."""
OPEN = ("queued", "running")


@router.get("/turns/{run_id}", response_model=None, summary="A turn, finished or not")
async def turn(
    run_id: UUID, request: Request, wait: Annotated[float, Query(ge=0, le=LONGEST)] = 0.0
) -> JSONResponse:
    """Its status (queued, running, done, failed, cancelled), and the answer or the reason once there is one.

    `wait` holds the answer back until the turn has ended, for that many seconds at most. `callback` is there where a
    callback was not taken: given up or tried again, how often it was tried, and why.
    """
    services: Services = request.app.state.services
    found = await ended(str(run_id), caller(request), services, within=wait)
    trouble = None
    if found.status not in OPEN:
        trouble = await services.served.callbacks.trouble(found.run_id, tenant=found.tenant)
    return JSONResponse({**shown(found), **({} if trouble is None else {"callback": trouble})})


async def ended(run_id: str, who: Caller, services: Services, *, within: float) -> RunRecord:
    """The turn once it has ended, or as it is when the time is over. Raises NotFound."""
    feed = services.worker.feeds.get(run_id)
    found = await services.ledger.find(run_id, tenant=who.tenant, user=who.user)
    if feed is not None:
        with contextlib.suppress(TimeoutError, AgentflowError):
            async with asyncio.timeout(within):
                await feed.finished()
        return await services.ledger.find(run_id, tenant=who.tenant, user=who.user)
    return await _elsewhere(found, who, services, within=within)


async def _elsewhere(found: RunRecord, who: Caller, services: Services, *, within: float) -> RunRecord:
    """A turn that another process works on: it signals the end to who asked for that beforehand."""
    until = asyncio.get_running_loop().time() + within
    with services.worker.wakes.on(found.run_id) as event:
        if found.status in OPEN and within:
            await services.served.runs.watch(found.run_id, tenant=who.tenant)
            found = await services.ledger.find(found.run_id, tenant=who.tenant, user=who.user)
        while found.status in OPEN and (left := until - asyncio.get_running_loop().time()) > 0:
            await woken(event, within=min(left, PATIENCE))
            found = await services.ledger.find(found.run_id, tenant=who.tenant, user=who.user)
    return found


def shown(record: RunRecord) -> Json:
    """A turn as its caller sees it."""
    return told(record.run_id, record.thread_id, record.status, record.result, record.error)
