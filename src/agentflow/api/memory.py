"""What a user may do with the user's own memories: look, change, take along, forget."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from agentflow.api.bodies import DoorRoute, Number
from agentflow.api.keys import caller
from agentflow.errors import Forbidden, NotFound, UnknownCollection, UnknownRole
from agentflow.protocols import DOCUMENTS, Scope, searched_scopes
from agentflow.records.memory.forget import Selector
from agentflow.records.memory.lines import LONGEST, as_line
from agentflow.records.memory.rights import Change, Filter, Owner, unknown
from agentflow.runs.lookup import lookup
from agentflow.turn import Json
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute, prefix="/memory", tags=["memory"])
uploads = APIRouter(route_class=DoorRoute, prefix="/memory", tags=["memory"])
"""Requests that may be larger than others: `memory.upload_limit`."""
Kind = Literal["turn", "chunk", "fact", "summary"]


def owner(request: Request) -> Owner:
    """Whose memories a request is about: the gate has let only keys with the scope `memory` come here."""
    who = caller(request)
    return Owner(who.tenant, who.user, shared="admin" in who.scopes)


Mine = Annotated[Owner, Depends(owner)]


class Lines(StreamingResponse):
    """One JSON object per line."""

    media_type = "application/x-ndjson"


class Listing(BaseModel):
    """Which memories to list; what is left out does not matter."""

    model_config = ConfigDict(extra="forbid")

    collection: str | None = None
    kind: Kind | None = None
    role: str | None = Field(None, description="What this role said, heard or was given.")
    thread_id: UUID | None = None
    document: Number | None = None
    pinned: bool | None = None
    text: str | None = Field(None, max_length=1000, description="Looked for as it stands, in any case.")
    before: Number | None = Field(None, description="Older than this one: the `next` of the page before.")
    limit: int = Field(50, ge=1, le=500)

    @property
    def filter(self) -> Filter:
        fields = self.model_dump(exclude={"thread_id"})
        return Filter(thread=str(self.thread_id) if self.thread_id else None, **fields)


class Edit(BaseModel):
    """What to change; what is left out stays. `expires_at` null: never."""

    model_config = ConfigDict(extra="forbid")

    content: str | None = Field(None, description="The new wording; the former one is kept in its history.")
    pinned: bool | None = Field(None, description="Always offered to the prompt, and never expires.")
    hidden: bool | None = Field(None, description="Kept, but found by nobody.")
    expires_at: AwareDatetime | None = Field(None, description="When it is forgotten.")


class Forget(BaseModel):
    """What to forget: exactly one of these."""

    model_config = ConfigDict(extra="forbid")

    ids: list[Number] | None = Field(None, max_length=10_000, description="These memories.")
    thread_id: UUID | None = Field(None, description="A conversation, with its messages and turns.")
    document: Number | None = Field(None, description="A document.")
    text: str | None = Field(None, min_length=3, max_length=1000, description="Every memory that holds this.")
    collection: str | None = Field(None, description="The user's memories in a collection.")
    everything: Literal["user", "tenant"] | None = Field(
        None, description="All of the user's, or the tenant's."
    )
    preview: bool = Field(False, description="Only count; nothing changes.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Forget":
        if len(self._named) != 1:
            raise ValueError("name exactly one of ids, thread_id, document, text, collection, everything")
        return self

    @property
    def _named(self) -> list[str]:
        return [one for one in type(self).model_fields if one != "preview" and getattr(self, one) is not None]

    @property
    def selector(self) -> Selector:
        (name,) = self._named
        value = getattr(self, name)
        if name == "everything":
            return Selector(value)
        return Selector({"thread_id": "thread"}.get(name, name), str(value) if name == "thread_id" else value)


@router.get("", summary="Memories, newest first")
async def listed(wanted: Annotated[Listing, Query()], request: Request, mine: Mine) -> Json:
    """The caller's memories and what is everybody's."""
    found = await services_of(request).memories.rights.listed(mine, wanted.filter)
    return {"memories": found, "next": found[-1]["id"] if len(found) == wanted.limit else None}


@router.get("/search", summary="Search as a turn does, with why")
async def search(
    request: Request,
    mine: Mine,
    q: Annotated[str, Query(max_length=10_000, description="The question.")],
    collection: Annotated[str | None, Query()] = None,
    role: Annotated[str | None, Query(description="As a turn of this role; else in everything.")] = None,
    k: Annotated[int, Query(ge=1, le=100)] = 10,
) -> Json:
    """The best memories with what each part of the search gave; `recalled`: a turn would show it.

    Without `role` all of the caller's are searched: what private roles and single conversations keep, too.
    """
    services = services_of(request)
    return await lookup(
        q,
        await _scopes(mine, _collections(collection, services), role, services),
        k=k,
        home=services.needs.home,
        embedder=services.embedder,
        memory=services.settings.memory,
    )


@router.post("/forget", summary="Forget for real")
async def forget(body: Forget, request: Request, mine: Mine) -> Json:
    """Remove memories and all that was made from them, in one transaction; the answer is the receipt."""
    return await forgotten(services_of(request), mine, body.selector, preview=body.preview)


@router.get("/stats", summary="How much is remembered")
async def stats(request: Request, mine: Mine) -> Json:
    """Items and bytes by collection, vectors owed, the oldest; with the scope `admin` of the whole tenant."""
    return await services_of(request).memories.holdings.now(mine)


@router.get("/receipts", summary="What was forgotten, in numbers")
async def receipts(request: Request, mine: Mine) -> Json:
    """The caller's receipts, newest first."""
    return {"receipts": await services_of(request).memories.forgetting.receipts(mine)}


@router.get("/receipts/{number}", summary="One receipt")
async def receipt(number: UUID, request: Request, mine: Mine) -> Json:
    """Whether all homes of vectors have been emptied too."""
    found = await services_of(request).memories.forgetting.receipts(mine, str(number))
    if not found:
        raise NotFound(f"There is no receipt {number} for this user.", field="receipt", value=str(number))
    return found[0]


@router.get("/export", summary="Take along", response_class=Lines)
async def export(request: Request, mine: Mine, collection: Annotated[str | None, Query()] = None) -> Lines:
    """The caller's memories, oldest first, then documents, a line before those of its chunks; no vectors.

    Everybody's documents come along with a key of the scope `admin`.
    """
    portable = services_of(request).memories.portable

    async def lines() -> AsyncIterator[bytes]:
        async for one in portable.export(mine, collection):
            yield as_line(one)

    return Lines(lines())


@uploads.post(
    "/import",
    summary="Bring along",
    openapi_extra={"requestBody": {"content": {Lines.media_type: {"schema": {"type": "string"}}}}},
)
async def take(request: Request, mine: Mine) -> Json:
    """Lines as exported; what is there already stays as it is. A broken import goes on when it is sent again."""
    services = services_of(request)
    counts = await services.memories.portable.take(mine, _lines(request.stream()))
    services.owed.set()
    return counts


@router.get("/{number}", summary="One memory")
async def shown(number: Number, request: Request, mine: Mine) -> Json:
    """A memory with its earlier wordings, and the memories it was made from."""
    return await services_of(request).memories.rights.shown(mine, number)


@router.patch("/{number}", summary="Edit, pin, hide, let expire")
async def change(number: Number, body: Edit, request: Request, mine: Mine) -> Json:
    """Change a memory; a new wording is found by its words at once."""
    services = services_of(request)
    expires = "expires_at" in body.model_fields_set
    wanted = Change(body.content, body.pinned, body.hidden, expires, body.expires_at)
    changed = await services.memories.rights.change(mine, number, wanted)
    services.owed.set()
    return changed


@router.delete("/{number}", summary="Forget one memory")
async def drop(number: Number, request: Request, mine: Mine) -> Json:
    """Forget it, with the words it took from its message."""
    receipt = await forgotten(services_of(request), mine, Selector("ids", [number]), preview=False)
    if receipt["counts"]["memories"] == 0:
        raise unknown(number)
    return receipt


async def forgotten(services: Services, mine: Owner, selector: Selector, *, preview: bool) -> Json:
    """The receipt; what was learnt from a forgotten correction is unlearnt. Raises BadInput."""
    if selector.by == "tenant" and not mine.shared:
        raise Forbidden("Only a key with the scope `admin` forgets a whole tenant.", field="everything")
    receipt = await services.memories.forgetting.forget(mine, selector, preview=preview)
    if receipt["counts"]["feedback"] and not preview:
        await services.classifier.unlearn(await services.feedback.lessons())
    services.owed.set()
    return receipt


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > LONGEST:
            break
    yield rest


async def _scopes(mine: Owner, names: list[str], role: str | None, services: Services) -> list[Scope]:
    """All sets that the caller has a part in, or those that a turn of the role looks at. Raises UnknownRole."""
    if role is None:
        return await services.memories.rights.sets(mine, names)
    known = services.settings.roles
    if role not in known:
        raise UnknownRole(f"There is no role {role!r}. Roles: {', '.join(known)}.", field="role", value=role)
    beside = await services.needs.home.beside(mine.seen, role=role, thread=None, collections=names)
    reads = [name for name in names if name in known[role].reads]
    private_to = role if known[role].memory == "private" else None
    scopes = searched_scopes(mine.seen, reads, beside.scopes, private_to=private_to)
    return [one for one in scopes if one.collection in names]


def _collections(name: str | None, services: Services) -> list[str]:
    known = [*dict.fromkeys([*services.settings.collections, DOCUMENTS])]
    if name is not None and name not in known:
        raise UnknownCollection(
            f"There is no collection {name!r}. Collections: {', '.join(known)}.", value=name
        )
    return [name] if name is not None else known


def services_of(request: Request) -> Services:
    """What the application runs on."""
    services: Services = request.app.state.services
    return services
