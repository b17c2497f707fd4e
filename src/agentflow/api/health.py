"""Is the process up, and can it answer? /health asks nothing of the world; /ready asks all of it."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from agentflow import __version__
from agentflow.api.bodies import DoorRoute
from agentflow.errors import AdapterError, AgentflowError
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute)


@router.get("/health", summary="The process is up")
async def health(request: Request) -> dict[str, str]:
    """Answers as long as the process does; `house` tells its folder from others of the machine."""
    services: Services = request.app.state.services
    return {"status": "ok", "version": __version__, "house": services.mark}


@router.get("/ready", response_model=None, summary="Turns can be answered, or why not")
async def ready(request: Request) -> JSONResponse:
    """Database, engine and adapters, each with a sentence; 503 if database or engine cannot be used.

    A role whose adapter cannot be used is named, but does not keep the other roles from answering.
    """
    services: Services = request.app.state.services
    checks = {"database": await _database(services), "engine": await _engine(services)}
    broken = {role: str(one) for role, one in services.keeper.roster.items() if isinstance(one, AdapterError)}
    ok = all(check["ok"] for check in checks.values())
    body = {"ready": ok, **checks, "unusable_roles": broken}
    return JSONResponse(body, 200 if ok else 503)


async def _database(services: Services) -> dict[str, Any]:
    try:
        owed, age = await services.outbox.waiting()
    except AgentflowError as error:
        return {"ok": False, "detail": error.message}
    return {"ok": True, "detail": "answers", "vectors_owed": owed, "oldest_owed_seconds": round(age, 1)}


async def _engine(services: Services) -> dict[str, Any]:
    health = await services.engine.health()
    return {"ok": health.ok, "name": services.engine.name, "detail": health.detail}
