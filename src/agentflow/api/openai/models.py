"""GET /v1/models, and what a model's name asks for."""

from dataclasses import dataclass
from pathlib import PurePath

from fastapi import APIRouter, Request

from agentflow.api.bodies import DoorRoute
from agentflow.errors import NotFound
from agentflow.routing.select import BASE, MODEL, wanted
from agentflow.settings import Settings
from agentflow.turn import Json
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute)


@dataclass(frozen=True)
class Target:
    """What a name means: a turn, with a role or without, or the `bare` base model without memory and ledger."""

    bare: bool
    role: str | None


@router.get("/models", summary="agentflow, its roles, and the bare base model")
async def listed(request: Request) -> Json:
    """`agentflow` finds the role by meaning, `agentflow/ROLE` names it; the base model's own name is just that."""
    services: Services = request.app.state.services
    return {"object": "list", "data": [_shown(name) for name in names(services.settings)]}


@router.get("/models/{name:path}", summary="One model")
async def one(name: str, request: Request) -> Json:
    """Raises NotFound for a name that no request could use."""
    services: Services = request.app.state.services
    target(name, services.settings)
    return _shown(name)


def names(settings: Settings) -> list[str]:
    """Every model id there is."""
    return [MODEL, *(f"{MODEL}/{role}" for role in settings.roles), f"{MODEL}/{BASE}", bare_name(settings)]


def bare_name(settings: Settings) -> str:
    """The base model's name; of a folder only its last part, since nobody outside needs to know our paths."""
    base = settings.model.base
    return PurePath(base).name if base.startswith(("/", ".", "~")) else base


def target(model: str, settings: Settings) -> Target:
    """What a request's `model` asks for. Raises NotFound."""
    role = wanted(model)
    if model == MODEL or role in settings.roles or (role == BASE and model != BASE):
        return Target(bare=False, role=None if model == MODEL else role)
    if model == bare_name(settings):
        return Target(bare=True, role=None)
    known = ", ".join(names(settings))
    raise NotFound(f"There is no model {model!r}. Models: {known}.", field="model", value=model)


def _shown(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "agentflow"}
