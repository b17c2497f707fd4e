"""Assistants: graphs with settings, in versions; and what a graph looks like."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_type_hints

from fastapi import APIRouter, Request
from pydantic import Field, TypeAdapter
from pydantic.errors import PydanticUserError
from starlette.responses import Response

from agentflow.api.protocol.wire import (
    Given,
    Page,
    ProtocolRoute,
    answer,
    body_uuid,
    described,
    given,
    optional,
    paged,
    selected,
    services,
    who,
)
from agentflow.errors import BadInput, Busy
from agentflow.runs.wanted import found_assistant, small
from agentflow.turn import Json

router = APIRouter(route_class=ProtocolRoute, tags=["assistants"])
Sort = Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"]


class NewAssistant(Given):
    graph_id: str
    assistant_id: str | None = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    name: str | None = Field(None, max_length=256)
    description: str | None = Field(None, max_length=4096)
    if_exists: Literal["raise", "do_nothing"] = "raise"


class ChangedAssistant(Given):
    graph_id: str | None = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    name: str | None = Field(None, max_length=256)
    description: str | None = Field(None, max_length=4096)


class AssistantsWanted(Page):
    metadata: Json | None = None
    graph_id: str | None = None
    name: str | None = Field(None, max_length=256)
    sort_by: Sort | None = None
    sort_order: Literal["asc", "desc"] = "desc"
    select: list[str] | None = None


class VersionsWanted(Page):
    metadata: Json | None = None


class Latest(Given):
    version: int = Field(ge=1, le=1_000_000)


async def assistant(request: Request, name: str) -> Json:
    """An assistant by its id, or a graph's own by the graph's name. Raises NotFound."""
    return await found_assistant(services(request), name, who(request).tenant)


def graph_known(request: Request, graph: str | None) -> str | None:
    """Raises BadInput for a graph that is not served."""
    known = services(request).registry.ids
    if graph is not None and graph not in known:
        raise BadInput(f"No graph {graph!r} is served here. Graphs: {', '.join(known)}.", field="graph_id")
    return graph


def row_of(body: NewAssistant | ChangedAssistant) -> Json:
    """The body's fields under the names of the table."""
    config, context = body.config, body.context
    if context and (config or {}).get("configurable"):
        raise BadInput("Give settings in context or in config.configurable, not in both.", field="context")
    return {
        "graph": body.graph_id,
        "name": body.name,
        "description": body.description,
        "config": config,
        "context": context,
        "meta": None if body.metadata is None else small(body.metadata),
    }


@router.post(
    "/assistants", summary="Create an assistant", response_model=None, openapi_extra=described(NewAssistant)
)
async def create(request: Request) -> Response:
    body = await given(request, NewAssistant)
    graph_known(request, body.graph_id)
    wanted = body_uuid(body.assistant_id, "assistant_id")
    row = {**row_of(body), **({"id": wanted} if wanted else {})}
    served, tenant = services(request), who(request).tenant
    made = await served.assistants.create(tenant, row)
    if made is None and body.if_exists == "raise":
        raise Busy(f"There is an assistant {wanted} already.", field="assistant_id", value=wanted)
    return answer(made or await served.assistants.get(tenant, str(wanted)))


@router.post(
    "/assistants/search",
    summary="Find assistants",
    response_model=None,
    openapi_extra=described(AssistantsWanted, needed=False),
)
async def search(request: Request) -> Response:
    body = await optional(request, AssistantsWanted)
    tenant, found = who(request).tenant, services(request).assistants
    narrowed = narrowing(body)
    items = await found.search(
        tenant,
        narrowed,
        sort_by=body.sort_by or "created_at",
        descending=body.sort_order == "desc",
        limit=body.limit,
        offset=body.offset,
    )
    return paged(items, await found.count(tenant, narrowed), body, body.select)


@router.post(
    "/assistants/count",
    summary="How many there are",
    response_model=None,
    openapi_extra=described(AssistantsWanted, needed=False),
)
async def count(request: Request) -> Response:
    body = await optional(request, AssistantsWanted)
    return answer(await services(request).assistants.count(who(request).tenant, narrowing(body)))


def narrowing(body: AssistantsWanted) -> Json:
    return {"meta": body.metadata or {}, "graph": body.graph_id, "name": body.name}


@router.get("/assistants/{assistant_id}", summary="One assistant", response_model=None)
async def get(request: Request, assistant_id: str) -> Response:
    return answer(await assistant(request, assistant_id))


@router.patch(
    "/assistants/{assistant_id}",
    summary="A new version",
    response_model=None,
    openapi_extra=described(ChangedAssistant),
)
async def update(request: Request, assistant_id: str) -> Response:
    body = await given(request, ChangedAssistant)
    graph_known(request, body.graph_id)
    known = await assistant(request, assistant_id)
    changed = row_of(body)
    return answer(
        await services(request).assistants.update(who(request).tenant, known["assistant_id"], changed)
    )


@router.delete(
    "/assistants/{assistant_id}", summary="Remove an assistant", status_code=204, response_model=None
)
async def delete(request: Request, assistant_id: str) -> Response:
    known = await assistant(request, assistant_id)
    await services(request).assistants.delete(who(request).tenant, known["assistant_id"])
    return Response(status_code=204)


@router.post(
    "/assistants/{assistant_id}/versions",
    summary="Its versions, newest first",
    response_model=None,
    openapi_extra=described(VersionsWanted, needed=False),
)
async def versions(request: Request, assistant_id: str) -> Response:
    body = await optional(request, VersionsWanted)
    known = await assistant(request, assistant_id)
    items = await services(request).assistants.versions(
        who(request).tenant,
        known["assistant_id"],
        meta=body.metadata or {},
        limit=body.limit,
        offset=body.offset,
    )
    return answer(selected(items, None))


@router.post(
    "/assistants/{assistant_id}/latest",
    summary="Back to a version",
    response_model=None,
    openapi_extra=described(Latest),
)
async def latest(request: Request, assistant_id: str) -> Response:
    body = await given(request, Latest)
    known = await assistant(request, assistant_id)
    return answer(
        await services(request).assistants.set_version(
            who(request).tenant, known["assistant_id"], body.version
        )
    )


@router.get("/assistants/{assistant_id}/graph", summary="Its nodes and edges", response_model=None)
async def graph(request: Request, assistant_id: str, xray: str = "false") -> Response:
    known = await assistant(request, assistant_id)
    depth = int(xray) if xray.isdecimal() and len(xray) < 3 else xray.lower() == "true"
    async with services(request).registry.opened(known["graph_id"], known["config"]) as served:
        drawn = await served.aget_graph(xray=depth)
    return answer(drawn.to_json())


@router.get("/assistants/{assistant_id}/schemas", summary="What goes in and comes out", response_model=None)
async def schemas(request: Request, assistant_id: str) -> Response:
    known = await assistant(request, assistant_id)
    async with services(request).registry.opened(known["graph_id"], known["config"]) as served:
        return answer({"graph_id": known["graph_id"], **_schemas(served)})


@router.get("/assistants/{assistant_id}/subgraphs", summary="Its graphs within", response_model=None)
async def subgraphs(request: Request, assistant_id: str, *, recurse: bool = False) -> Response:
    return await _within(request, assistant_id, None, recurse=recurse)


@router.get("/assistants/{assistant_id}/subgraphs/{namespace}", summary="One of them", response_model=None)
async def subgraph(request: Request, assistant_id: str, namespace: str, *, recurse: bool = False) -> Response:
    return await _within(request, assistant_id, namespace, recurse=recurse)


async def _within(request: Request, assistant_id: str, namespace: str | None, *, recurse: bool) -> Response:
    known = await assistant(request, assistant_id)
    async with services(request).registry.opened(known["graph_id"], known["config"]) as served:
        return answer(
            {
                name: _schemas(inner)
                async for name, inner in served.aget_subgraphs(namespace=namespace, recurse=recurse)
            }
        )


async def schema_of_input(request: Request, graph: str) -> Json:
    """What a graph takes, as a JSON Schema."""
    async with services(request).registry.opened(graph) as served:
        return _schemas(served)["input_schema"] or {}


def _schemas(served: Any) -> Json:
    """JSON Schemas. Where a graph's types have none that pydantic knows, the names of its keys."""
    builder = getattr(served, "builder", None)
    return {
        "input_schema": _schema(served.get_input_jsonschema, getattr(builder, "input_schema", None)),
        "output_schema": _schema(served.get_output_jsonschema, getattr(builder, "output_schema", None)),
        "state_schema": _schema(partial(_state_schema, served), getattr(builder, "state_schema", None)),
        "config_schema": _schema(lambda: served.config_schema().model_json_schema(), None),
        "context_schema": _schema(served.get_context_jsonschema, None),
    }


def _state_schema(served: Any) -> Json:
    schema = getattr(getattr(served, "builder", None), "state_schema", None)
    return served.get_output_jsonschema() if schema is None else TypeAdapter(schema).json_schema()


def _schema(make: Callable[[], Json | None], kind: Any) -> Json | None:
    try:
        return make()
    except (PydanticUserError, TypeError, AttributeError, NameError):
        pass
    if kind is None:
        return {}
    messages: Json = {"type": "array", "items": {"type": "object"}}
    return {
        "title": kind.__name__,
        "type": "object",
        "properties": {name: messages if name == "messages" else {} for name in get_type_hints(kind)},
    }
