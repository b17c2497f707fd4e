"""Roles and how messages find them: ask without a turn, correct a turn, pin a thread."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from agentflow.api.bodies import DoorRoute, Number
from agentflow.api.invoke import checked
from agentflow.api.keys import caller
from agentflow.api.protocol.wire import ProtocolRoute
from agentflow.errors import UnknownRole
from agentflow.routing.select import BASE, wanted
from agentflow.runs.preview import alone, preview
from agentflow.turn import Json
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute)
of_threads = APIRouter(route_class=ProtocolRoute, tags=["threads"])
"""What lies below the LangGraph Server's addresses refuses as that does."""
HISTORY = 10
RoleOrNone = Annotated[str | None, Field(max_length=128, description="A role's name; null or base: none.")]


class Question(BaseModel):
    """A message to be routed, not answered."""

    model_config = ConfigDict(extra="forbid")

    input: str = Field(description="What the user would say.")
    role: str | None = Field(None, max_length=128, description="A role's name, or agentflow/NAME.")
    thread_id: UUID | None = Field(None, description="As the next message of this conversation.")


class Correction(BaseModel):
    """The role a turn should have had."""

    model_config = ConfigDict(extra="forbid")

    role: RoleOrNone


class Review(BaseModel):
    """Whether feedback becomes an example."""

    model_config = ConfigDict(extra="forbid")

    accept: bool


class Pin(BaseModel):
    """The role of every later message of a thread."""

    model_config = ConfigDict(extra="forbid")

    role: RoleOrNone


@router.post("/route", summary="Which role a message would get, and why")
async def route(body: Question, request: Request) -> Json:
    """Decide without running a turn; nothing is stored."""
    services = _services(request)
    text = checked(body.input, services.settings)
    context = alone(text)
    if body.thread_id is not None:
        who = caller(request)
        context = await services.threads.context(
            str(body.thread_id), text, tenant=who.tenant, user=who.user, messages=HISTORY
        )
    return await preview(
        context,
        wanted_role=body.role,
        classifier=services.classifier,
        roles=services.needs.roles,
        router=services.settings.router,
    )


@router.get("/routes", summary="The roles and what they are told apart by")
async def routes(request: Request) -> Json:
    """Every role with its examples, lessons of feedback included, and the state of the classifier."""
    services = _services(request)
    fitted = services.classifier.fitted
    examples = [] if fitted is None else fitted.examples
    return {
        "router": services.classifier.version,
        "thresholds": None
        if fitted is None
        else {"scope": fitted.thresholds.scope, "margin": fitted.thresholds.margin},
        "roles": list(services.settings.roles),
        "examples": [
            {"role": one.role or None, "intent": one.intent or None, "text": one.text} for one in examples
        ],
    }


@router.post("/turns/{run_id}/feedback", summary="The role this turn should have had")
async def correct(run_id: UUID, body: Correction, request: Request) -> Json:
    """Store a corrected example. With `router.feedback: immediate` it takes part at once, else after review."""
    services = _services(request)
    settings = services.settings.router
    immediate = settings.feedback == "immediate"
    stored = await services.feedback.give(
        str(run_id),
        _known(body.role, services),
        owner=caller(request).owner,
        accepted=immediate,
        chars=settings.text_limit,
    )
    if immediate:
        await _learn(services)
    return stored


@router.get("/feedback", summary="Feedback by state")
async def listed(
    request: Request,
    status: Annotated[Literal["waiting", "accepted", "rejected"], Query()] = "waiting",
) -> Json:
    """What waits for review, oldest first; or what was accepted or rejected."""
    return {"feedback": await _services(request).feedback.listed(status, tenant=caller(request).tenant)}


@router.post("/feedback/{number}", summary="Accept or reject feedback")
async def review(number: Number, body: Review, request: Request) -> Json:
    """Accepted feedback takes part from now on; rejected feedback no longer does."""
    services = _services(request)
    stored = await services.feedback.review(number, accept=body.accept, tenant=caller(request).tenant)
    await _learn(services)
    return stored


@of_threads.put("/threads/{thread_id}/role", summary="Pin a role to a thread")
async def pin(thread_id: UUID, body: Pin, request: Request) -> Json:
    """Later messages of the thread get this role unless another is asked for; null takes the pin away."""
    services = _services(request)
    role = _known(body.role, services)
    who = caller(request)
    await services.threads.pin(str(thread_id), role, tenant=who.tenant, user=who.user)
    return {"thread_id": str(thread_id), "pinned_role": role}


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _learn(services: Services) -> None:
    await services.classifier.learn(await services.feedback.lessons())


def _known(name: str | None, services: Services) -> str | None:
    """The role of that name, None for none. Raises UnknownRole."""
    role = wanted(name)
    if role is None or (role == BASE and BASE not in services.settings.roles):
        return None
    if role not in services.settings.roles:
        known = ", ".join(services.settings.roles) or "none"
        raise UnknownRole(f"There is no role {role!r}. Roles: {known}.", field="role", value=name)
    return role
