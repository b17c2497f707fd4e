"""Where collections are searched, and whether they are whole."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from agentflow.api.bodies import DoorRoute
from agentflow.api.keys import caller
from agentflow.errors import Forbidden, UnknownCollection
from agentflow.turn import Json
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute, prefix="/memory", tags=["memory"])


def operator(request: Request) -> int:
    """The tenant of a caller who may see how memory is kept. Raises Forbidden."""
    who = caller(request)
    if "admin" not in who.scopes:
        raise Forbidden("This key may not see where memories are: it lacks the scope `admin`.", field="key")
    return who.tenant


Tenant = Annotated[int, Depends(operator)]


@router.get("/places", summary="Where each collection is searched, and how far a move is")
async def places(request: Request, tenant: Tenant, collection: str | None = None) -> Json:
    services: Services = request.app.state.services
    settings = services.settings.collections
    if collection is not None and collection not in settings:
        raise UnknownCollection(f"There is no collection {collection}.", field="collection", value=collection)
    kept = [one for one in await services.places.record.status(collection) if one.tenant == tenant]
    shown = []
    for name in settings if collection is None else [collection]:
        home, coming = services.places.homes.get(name), services.places.coming.get(name)
        shown.append(
            {
                "collection": name,
                "backend": settings[name].backend,
                "location": settings[name].location,
                "place": home.place if home else "postgres",
                "moving_to": coming.place if coming else None,
                "trouble": next(
                    (services.places.trouble.get(one.place) for one in (coming, home) if one), None
                ),
                "told": [asdict(one) for one in kept if one.collection == name],
            }
        )
    return {"places": shown}


@router.get("/check", summary="Counts that must agree, vectors owed, and how much of the nearest is found")
async def check(request: Request, tenant: Tenant) -> Json:
    services: Services = request.app.state.services
    return await services.memory_check.look(tenant)
