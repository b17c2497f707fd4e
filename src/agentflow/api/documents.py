"""Documents: upload files, list and forget them. No request names a path: only what is sent is read."""

from pathlib import PurePath
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request, UploadFile

from agentflow.api.bodies import DoorRoute, Number
from agentflow.api.memory import Mine, forgotten, services_of
from agentflow.errors import BadInput, Forbidden, NotFound, UnknownRole
from agentflow.protocols import DOCUMENTS, Scope
from agentflow.records.memory.forget import Selector
from agentflow.records.memory.library import File
from agentflow.records.memory.rights import Owner
from agentflow.turn import Json
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute, prefix="/memory/documents", tags=["memory"])
uploads = APIRouter(route_class=DoorRoute, prefix="/memory/documents", tags=["memory"])
"""Requests that may be larger than others: `memory.upload_limit`."""
NAME = 200


@uploads.post("", summary="Add a document")
async def add(
    file: UploadFile,
    request: Request,
    mine: Mine,
    collection: Annotated[str, Form(description="A collection; every role reads `documents`.")] = DOCUMENTS,
    role: Annotated[str | None, Form(description="Only for this role.")] = None,
    thread_id: Annotated[UUID | None, Form(description="Only for this conversation.")] = None,
    everybody: Annotated[
        bool, Form(description="For all users of the tenant; needs the scope `admin`.")
    ] = False,
) -> Json:
    """Read a file and remember its chunks. Under a name that is there already, only what changed is replaced."""
    services = services_of(request)
    scope = Scope(mine.tenant, collection, mine.user, role, str(thread_id) if thread_id else None)
    if everybody:
        scope = Scope(mine.tenant, collection, None, role)
    await _checked(scope, mine, services)
    name = PurePath((file.filename or "").replace("\\", "/")).name
    if not 0 < len(name) <= NAME or not name.isprintable():
        raise BadInput(
            f"The file needs a name of at most {NAME} printable characters.", field="file", value=name
        )
    sent = File(name, file.content_type or "application/octet-stream", await file.read())
    if await services.memories.library.known(scope, sent):
        return {"name": name, "status": "unchanged"}
    told = await services.memories.library.add(
        scope, sent, await services.memories.reader.read(name, sent.data)
    )
    services.owed.set()
    return told


@router.get("", summary="Documents")
async def listed(request: Request, mine: Mine) -> Json:
    """The caller's documents and everybody's; `owed`: chunks that are found by words only, so far."""
    return {"documents": await services_of(request).memories.library.listed(mine)}


@router.delete("/{number}", summary="Forget a document")
async def drop(number: Number, request: Request, mine: Mine) -> Json:
    """Forget a document with its chunks; the answer is the receipt."""
    receipt = await forgotten(services_of(request), mine, Selector("document", number), preview=False)
    if receipt["counts"]["documents"] == 0:
        raise NotFound(f"There is no document {number} for this user.", field="id", value=number)
    return receipt


async def _checked(scope: Scope, mine: Owner, services: Services) -> None:
    """Raises what makes a place impossible."""
    if scope.user is None and not mine.shared:
        raise Forbidden("Only a key with the scope `admin` adds documents for everybody.", field="everybody")
    known = {DOCUMENTS, *services.settings.collections}
    if scope.collection not in known:
        raise BadInput(
            f"There is no collection {scope.collection!r}. Collections: {', '.join(sorted(known))}.",
            field="collection",
            value=scope.collection,
        )
    if scope.role is not None and scope.role not in services.settings.roles:
        known_roles = ", ".join(services.settings.roles) or "none"
        raise UnknownRole(
            f"There is no role {scope.role!r}. Roles: {known_roles}.", field="role", value=scope.role
        )
    if scope.thread is not None:
        await services.threads.context(scope.thread, "", tenant=mine.tenant, user=mine.user, messages=0)
