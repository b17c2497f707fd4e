"""All parts of the door."""

from fastapi import APIRouter

from agentflow.api.protocol import (
    a2a,
    assistants,
    commands,
    crons,
    events,
    mcp,
    meta,
    runs,
    states,
    store,
    stream,
    threads,
)


def routers() -> list[APIRouter]:
    """In the order in which paths are tried: fixed ones before ids, what is asked most before the rest."""
    return [
        crons.router,
        stream.router,
        runs.router,
        meta.router,
        assistants.router,
        threads.router,
        states.router,
        commands.router,
        events.router,
        mcp.router,
        a2a.router,
        store.router,
    ]
