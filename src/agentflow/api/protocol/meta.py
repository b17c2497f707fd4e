"""/info and /ok: which protocol this is, and that it answers."""

from importlib.metadata import version

from fastapi import APIRouter, Request
from starlette.responses import Response

from agentflow import __version__
from agentflow.api.protocol.wire import ProtocolRoute, answer, detail, services
from agentflow.errors import AgentflowError

router = APIRouter(route_class=ProtocolRoute, tags=["protocol"])
PROTOCOL = "0.16.7"
"""The version of the protocol that we speak; clients compare it with what they need."""
FLAGS = {"assistants": True, "crons": True, "langsmith": False, "langsmith_tracing_replicas": False}


@router.get("/info", summary="Versions and what is switched on", response_model=None)
async def info() -> Response:
    """`version` is the protocol's, which clients compare; ours is `agentflow_version`."""
    return answer(
        {
            "version": PROTOCOL,
            "langgraph_py_version": version("langgraph"),
            "agentflow_version": __version__,
            "flags": FLAGS,
            "host": {"kind": "self-hosted", "project_id": None, "revision_id": None, "tenant_id": None},
        }
    )


@router.get("/ok", summary="This server answers", response_model=None)
async def ok(request: Request, *, check_db: bool = False) -> Response:
    """With `check_db=1`: and so does its database."""
    if check_db:
        try:
            await services(request).crons.count(0, "", {})
        except AgentflowError as error:
            return detail(503, error.message)
    return answer({"ok": True})
