"""The store: small JSON items under names, of one user."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from langgraph.store.base import InvalidNamespaceError
from pydantic import Field
from starlette.responses import Response

from agentflow.api.protocol.wire import (
    Given,
    ProtocolRoute,
    answer,
    described,
    given,
    optional,
    owner,
    services,
)
from agentflow.errors import BadInput, TooLarge
from agentflow.records.protocol.store import UserStore
from agentflow.runs.encoding import encoded
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["store"])
DEPTH = 20
VALUE_BYTES = 256 * 1024


class NewItem(Given):
    namespace: list[str] = Field(min_length=1, max_length=DEPTH)
    key: str = Field(min_length=1, max_length=512)
    value: Json
    ttl: float | None = Field(None, ge=0.001, le=60 * 24 * 3650, description="Minutes.")
    index: Literal[False] | list[str] | None = None


class OldItem(Given):
    namespace: list[str] = Field(default_factory=list, max_length=DEPTH)
    key: str = Field(min_length=1, max_length=512)


class ItemsWanted(Given):
    namespace_prefix: list[str] = Field(default_factory=list, max_length=DEPTH)
    filter: Json | None = None
    query: str | None = Field(None, max_length=10_000)
    limit: int = Field(10, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=1_000_000)
    refresh_ttl: bool | None = None


class NamespacesWanted(Given):
    prefix: list[str] | None = Field(None, max_length=DEPTH)
    suffix: list[str] | None = Field(None, max_length=DEPTH)
    max_depth: int | None = Field(None, ge=1, le=DEPTH)
    limit: int = Field(100, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=1_000_000)


def store(request: Request) -> UserStore:
    return services(request).store(owner(request))


def names(given_names: list[str]) -> tuple[str, ...]:
    """A namespace. Raises BadInput for labels that are empty or hold a dot."""
    wrong = [one for one in given_names if not one or "." in one or len(one) > 256]
    if wrong:
        raise BadInput(
            "Labels of a namespace are not empty and hold no dots.", field="namespace", value=wrong[0]
        )
    return tuple(given_names)


def shown(item: Any) -> Json:
    found = item.dict()
    return {**found, "namespace": list(found["namespace"])}


@router.put(
    "/store/items",
    summary="Store an item",
    status_code=204,
    response_model=None,
    openapi_extra=described(NewItem),
)
async def put(request: Request) -> Response:
    body = await given(request, NewItem)
    if len(encoded(body.value)) > VALUE_BYTES:
        raise TooLarge(f"value is larger than {VALUE_BYTES} bytes.", field="value")
    options = {} if body.ttl is None else {"ttl": body.ttl}
    try:
        await store(request).aput(names(body.namespace), body.key, body.value, index=body.index, **options)
    except InvalidNamespaceError as error:
        raise BadInput(str(error), field="namespace") from None
    return Response(status_code=204)


@router.get("/store/items", summary="One item, or null", response_model=None)
async def get(request: Request, key: Annotated[str, Query(max_length=512)], namespace: str = "") -> Response:
    found = await store(request).aget(names([one for one in namespace.split(".") if one]), key)
    return answer(None if found is None else shown(found))


@router.delete(
    "/store/items",
    summary="Remove an item",
    status_code=204,
    response_model=None,
    openapi_extra=described(OldItem),
)
async def delete(request: Request) -> Response:
    body = await given(request, OldItem)
    await store(request).adelete(names(body.namespace), body.key)
    return Response(status_code=204)


@router.post(
    "/store/items/search",
    summary="Find items",
    response_model=None,
    openapi_extra=described(ItemsWanted, needed=False),
)
async def search(request: Request) -> Response:
    body = await optional(request, ItemsWanted)
    try:
        found = await store(request).asearch(
            names(body.namespace_prefix),
            filter=body.filter,
            query=body.query,
            limit=body.limit,
            offset=body.offset,
        )
    except ValueError as error:
        raise BadInput(f"filter cannot be used: {error}.", field="filter") from None
    items = [{**shown(one), "score": one.score} for one in found]
    return answer({"items": items})


@router.post(
    "/store/namespaces",
    summary="Which namespaces there are",
    response_model=None,
    openapi_extra=described(NamespacesWanted, needed=False),
)
async def namespaces(request: Request) -> Response:
    body = await optional(request, NamespacesWanted)
    try:
        found = await store(request).alist_namespaces(
            prefix=tuple(body.prefix) if body.prefix else None,
            suffix=tuple(body.suffix) if body.suffix else None,
            max_depth=body.max_depth,
            limit=body.limit,
            offset=body.offset,
        )
    except ValueError as error:
        raise BadInput(f"prefix or suffix cannot be used: {error}", field="prefix") from None
    return answer({"namespaces": [list(one) for one in found]})
