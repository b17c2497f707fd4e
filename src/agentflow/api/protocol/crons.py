"""Crons: runs by the clock, in a thread or each in one of its own."""

from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from agentflow.api.protocol.assistants import assistant
from agentflow.api.protocol.threads import owned
from agentflow.api.protocol.wire import (
    Given,
    Page,
    ProtocolRoute,
    answer,
    body_uuid,
    described,
    given,
    optional,
    paged,
    services,
    shaped,
    uuid_of,
    who,
)
from agentflow.runs.schedule import next_time
from agentflow.runs.wanted import RunWanted, small
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["crons"])
Sort = Literal[
    "cron_id", "assistant_id", "thread_id", "created_at", "updated_at", "next_run_date", "end_time"
]


class NewCron(RunWanted):
    schedule: str = Field(max_length=256)
    timezone: str = Field("UTC", max_length=64)
    end_time: datetime | None = None
    enabled: bool = True
    on_run_completed: Literal["delete", "keep"] | None = None


class ChangedCron(Given):
    schedule: str | None = Field(None, max_length=256)
    timezone: str | None = Field(None, max_length=64)
    end_time: datetime | None = None
    enabled: bool | None = None
    input: Any = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    webhook: str | None = Field(None, max_length=2048)


class CronsWanted(Page):
    assistant_id: str | None = None
    thread_id: str | None = None
    enabled: bool | None = None
    metadata: Json | None = None
    sort_by: Sort | None = None
    sort_order: Literal["asc", "desc"] = "desc"
    select: list[str] | None = None


@router.post("/runs/crons", summary="Run by the clock", response_model=None, openapi_extra=described(NewCron))
async def create(request: Request) -> Response:
    return await _created(request, None)


@router.post(
    "/threads/{thread_id}/runs/crons",
    summary="Run in a thread by the clock",
    response_model=None,
    openapi_extra=described(NewCron),
)
async def create_in_thread(request: Request, thread_id: str) -> Response:
    return await _created(request, (await owned(request, thread_id))["thread_id"])


async def _created(request: Request, thread_id: str | None) -> Response:
    body = await given(request, NewCron)
    me, chosen = who(request), await assistant(request, body.assistant_id)
    next_at = next_time(body.schedule, body.timezone, datetime.now(UTC))
    made = await services(request).crons.create(
        me.tenant,
        me.user,
        {
            "assistant": chosen["assistant_id"],
            "thread": thread_id,
            "schedule": body.schedule,
            "timezone": body.timezone,
            "work": asked(body),
            "meta": small(body.metadata),
            "enabled": body.enabled,
            "end_at": _aware(body.end_time),
            "next_at": next_at,
        },
    )
    await services(request).clock.wake(made)
    return answer(made)


def asked(body: RunWanted) -> Json:
    """The body of the runs that will be begun."""
    skipped = {"schedule", "timezone", "end_time", "enabled", "on_run_completed", "metadata", "after_seconds"}
    return body.model_dump(mode="json", exclude=skipped, exclude_defaults=True)


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


@router.post(
    "/runs/crons/search",
    summary="Find crons",
    response_model=None,
    openapi_extra=described(CronsWanted, needed=False),
)
async def search(request: Request) -> Response:
    body = await optional(request, CronsWanted)
    me, crons, narrowed = who(request), services(request).crons, narrowing(body)
    found = await crons.search(
        me.tenant, me.user, narrowed, sort_by=body.sort_by or "created_at", descending=body.sort_order == "desc",
        limit=body.limit, offset=body.offset,
    )  # fmt: skip
    return paged(found, await crons.count(me.tenant, me.user, narrowed), body, body.select)


@router.post(
    "/runs/crons/count",
    summary="How many there are",
    response_model=None,
    openapi_extra=described(CronsWanted, needed=False),
)
async def count(request: Request) -> Response:
    body = await optional(request, CronsWanted)
    me = who(request)
    return answer(await services(request).crons.count(me.tenant, me.user, narrowing(body)))


def narrowing(body: CronsWanted) -> Json:
    return {
        "assistant": body_uuid(body.assistant_id, "assistant_id"),
        "thread": body_uuid(body.thread_id, "thread_id"),
        "enabled": body.enabled,
        "meta": body.metadata or {},
    }


@router.get("/runs/crons/{cron_id}", summary="One cron", response_model=None)
async def get(request: Request, cron_id: str) -> Response:
    me = who(request)
    return answer(await services(request).crons.get(me.tenant, me.user, uuid_of(cron_id, "cron_id")))


@router.patch(
    "/runs/crons/{cron_id}", summary="Change it", response_model=None, openapi_extra=described(ChangedCron)
)
async def update(request: Request, cron_id: str) -> Response:
    body = await given(request, ChangedCron)
    me, crons, wanted = who(request), services(request).crons, uuid_of(cron_id, "cron_id")
    known = await crons.get(me.tenant, me.user, wanted)
    schedule, zone = body.schedule or known["schedule"], body.timezone or known["timezone"]
    changes = body.model_dump(
        mode="json", include={"input", "config", "context", "webhook"}, exclude_none=True
    )
    work = {**known["payload"], **changes}
    shaped(work, RunWanted)
    end = body.end_time or (datetime.fromisoformat(known["end_time"]) if known["end_time"] else None)
    row = {
        "schedule": schedule,
        "timezone": zone,
        "work": work,
        "meta": {**known["metadata"], **small(body.metadata)},
        "enabled": known["enabled"] if body.enabled is None else body.enabled,
        "end_at": _aware(end),
        "next_at": next_time(schedule, zone, datetime.now(UTC)),
    }
    changed = await crons.update(me.tenant, me.user, wanted, row)
    await services(request).clock.wake(changed)
    return answer(changed)


@router.delete("/runs/crons/{cron_id}", summary="Remove it", status_code=204, response_model=None)
async def delete(request: Request, cron_id: str) -> Response:
    me = who(request)
    await services(request).crons.delete(me.tenant, me.user, uuid_of(cron_id, "cron_id"))
    return Response(status_code=204)
