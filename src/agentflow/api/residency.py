"""Where adapters are, for people and machines: look, warm, unload, pin; and read the file again."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from agentflow.api.bodies import DoorRoute
from agentflow.api.keys import caller
from agentflow.residency.report import row
from agentflow.turn import Json
from agentflow.wiring import Services


def services_of(request: Request) -> Services:
    """The running services. What may be done with them the gate has decided: changes take the scope admin."""
    services: Services = request.app.state.services
    return services


Running = Annotated[Services, Depends(services_of)]
router = APIRouter(route_class=DoorRoute, tags=["residency"])


class Wish(BaseModel):
    """What to do with an adapter. `wait`: answer only once it is done."""

    model_config = ConfigDict(extra="forbid")

    wait: bool = Field(False, description="Answer when the adapter is ready.")


class Pin(BaseModel):
    """A tier that the adapter never leaves."""

    model_config = ConfigDict(extra="forbid")

    tier: Literal["vram", "ram", "disk"] = "vram"


@router.get("/residency", summary="Where every adapter is, and what happens next")
async def residency(services: Running, request: Request) -> Json:
    """Engine, tiers, machine and adapters. `exact` false: the engine does not tell, we infer.

    Where files come from is told to keys with the scope admin only.
    """
    report = await services.watching.report()
    if "admin" in caller(request).scopes:
        return report
    return {**report, "adapters": [{**one, "source": ""} for one in report["adapters"]]}


@router.post("/residency/{role}/warm", summary="Bring an adapter into the engine")
async def warm(role: str, services: Running, body: Annotated[Wish | None, Body()] = None) -> Json:
    """The load begins now; a turn that follows finds it under way or done."""
    services.keeper.demand(role)
    if body is not None and body.wait:
        async with services.keeper.hold(role):
            pass
    return _row(services, role)


@router.post("/residency/{role}/unload", summary="Take an adapter out of the engine")
async def unload(role: str, services: Running) -> Json:
    """Waits a few seconds for its turns to end; while they go on, 409."""
    await services.keeper.unload(role)
    return _row(services, role)


@router.post("/residency/{role}/pin", summary="Keep an adapter in a tier")
async def pin(role: str, services: Running, body: Annotated[Pin | None, Body()] = None) -> Json:
    """Until it is unpinned, the file says something else, or agentflow starts again."""
    await services.keeper.pin(role, (body or Pin()).tier)
    return _row(services, role)


@router.post("/residency/{role}/unpin", summary="Let an adapter go again")
async def unpin(role: str, services: Running) -> Json:
    """It leaves when it is idle or its place is needed."""
    await services.keeper.pin(role, None)
    return _row(services, role)


@router.post("/config/reload", summary="Read agentflow.yaml and the adapters again")
async def reload(services: Running) -> Json:
    """Roles appear, move or leave without a failed turn. A file with mistakes is refused and changes nothing."""
    return await services.reload()


def _row(services: Services, role: str) -> Json:
    places = (place for place in services.keeper.places() if place.role == role and place.retired is None)
    return next((row(services.keeper, place) for place in places), {"role": role, "adapter": None})
