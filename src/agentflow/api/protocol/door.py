"""All parts of the door."""

from fastapi import APIRouter

from agentflow.api.protocol import assistants, crons, meta, runs, store, stream, threads


def routers() -> list[APIRouter]:
    """In the order in which paths are tried: fixed ones before those with ids."""
    return [
        meta.router,
        assistants.router,
        threads.router,
        crons.router,
        stream.router,
        runs.router,
        store.router,
    ]
