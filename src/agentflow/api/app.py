"""The application: doors, errors, limits, and the key where one is set."""

from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from agentflow import __version__
from agentflow.api import health, invoke, problems, routing
from agentflow.api.keys import guard
from agentflow.api.limits import ReadableRefusal
from agentflow.wiring import Services


def create(services: Services) -> ASGIApp:
    """The application over running services; whoever opened them closes them."""
    server = services.settings.server
    app = FastAPIOffline(
        title="agentflow",
        version=__version__,
        summary="One base model, many minds.",
        max_body_size=server.body_limit,
    )
    app.state.services = services
    app.include_router(invoke.router)
    app.include_router(routing.router)
    app.include_router(health.router)
    problems.install(app)
    if server.api_key is not None:
        app.middleware("http")(guard(server.api_key))
    return ReadableRefusal(app, body_limit=server.body_limit)
