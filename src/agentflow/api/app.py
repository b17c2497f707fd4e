"""The application: doors, errors, limits, and the key where one is set."""

from fastapi import APIRouter
from fastapi_offline import FastAPIOffline
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from agentflow import __version__
from agentflow.api import (
    collections,
    documents,
    health,
    invoke,
    listening,
    memory,
    openai,
    origins,
    problems,
    protocol,
    residency,
    routing,
    turns,
    watch,
)
from agentflow.api.keys import gate, must_show
from agentflow.api.limits import Impatient, ReadableRefusal
from agentflow.api.openapi import describe
from agentflow.api.watch import Watch
from agentflow.wiring import Services

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


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
    for router in protocol.routers():
        app.include_router(router)
    app.include_router(invoke.router)
    app.include_router(routing.router)
    app.include_router(routing.of_threads)
    app.include_router(residency.router)
    larger = APIRouter(max_body_size=services.settings.memory.upload_limit)
    for uploads in (memory.uploads, documents.uploads):
        larger.include_router(uploads)
    app.include_router(larger)
    app.include_router(collections.router)
    app.include_router(documents.router)
    app.include_router(memory.router)
    app.include_router(turns.router)
    app.include_router(openai.router)
    app.include_router(health.router)
    app.include_router(watch.router)
    describe(app)
    problems.install(app)
    listening.install(app)
    app.add_middleware(origins.Guard, origins=server.origins)
    if services.settings.access.hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, *services.settings.access.hosts])
    elif not must_show(services.settings):
        # Without a key only this machine's own names are answered: a web page whose name was
        # rebound to a loopback address sends its own name as Host.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK], www_redirect=False)
    readable = ReadableRefusal(Impatient(app), body_limit=server.body_limit)
    guarded = gate(readable, services.keys, services.settings, services.metrics, services.spending)
    return Watch(origins.shown(openai.InTheirShape(guarded), server.origins), services.metrics)
