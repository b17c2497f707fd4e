"""What every part of this door shares: bodies, ids, errors of the shape `{"detail": "..."}`, pages."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from uuid import UUID

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from agentflow.api.bodies import DoorRoute, parsed
from agentflow.api.keys import Caller, caller
from agentflow.api.problems import status
from agentflow.errors import AgentflowError, BadInput, NotFound
from agentflow.protocols import Owner
from agentflow.runs.encoding import encoded
from agentflow.turn import Json
from agentflow.wiring import Served, Services

log = structlog.get_logger(__name__)
JSON = "application/json"
META_BYTES = 16 * 1024
Body = TypeVar("Body", bound=BaseModel)


class Given(BaseModel):
    """A body: what we do not know in it is ignored, as clients of other versions expect."""

    model_config = ConfigDict(extra="ignore")


class Page(Given):
    """Which part of a list."""

    limit: int = Field(10, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=1_000_000)


class ProtocolRoute(DoorRoute):
    """Every error of this door is `{"detail": "..."}`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handle(request)
            except AgentflowError as error:
                return refused(error)
            except RequestValidationError as error:
                return detail(422, explained(error.errors()))
            except ClientDisconnect:
                return Response(status_code=499)

        return guarded


def answer(value: Any, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON."""
    return Response(encoded(value), code, headers, JSON)


def detail(code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error of this door."""
    return answer({"detail": message}, code, headers)


def refused(error: AgentflowError) -> Response:
    """An error of ours, as this door tells it."""
    wait = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    return detail(status(error), error.message, wait)


def services(request: Request) -> Served:
    found: Services = request.app.state.services
    return found.served


def who(request: Request) -> Caller:
    return caller(request)


def owner(request: Request) -> Owner:
    """Whose rows this request may see."""
    me = caller(request)
    return Owner(me.tenant, me.user)


def uuid_of(text: str, field: str) -> str:
    """An id in its one form. Raises NotFound: what is no id names nothing."""
    try:
        return str(UUID(text))
    except ValueError:
        raise NotFound(
            f"There is no {field.removesuffix('_id')} {text[:80]!r}.", field=field, value=text
        ) from None


def body_uuid(given: object, field: str) -> str | None:
    """An id in a body. Raises BadInput."""
    if given is None:
        return None
    try:
        return str(UUID(str(given)))
    except ValueError:
        raise BadInput(f"{field} is not a UUID: {str(given)[:80]!r}.", field=field, value=given) from None


async def given(request: Request, kind: type[Body]) -> Body:
    """The body, whatever its content type says. Raises BadInput."""
    found = await raw(request)
    if not isinstance(found, dict):
        raise BadInput("The body is not a JSON object.", field="body")
    return shaped(found, kind)


async def optional(request: Request, kind: type[Body]) -> Body:
    """As `given`, but a missing body is an empty one."""
    return await given(request, kind) if (await request.body()).strip() else shaped({}, kind)


def shaped(found: Json, kind: type[Body]) -> Body:
    """Raises BadInput with one sentence."""
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise BadInput(explained(error.errors())) from None


async def raw(request: Request) -> Any:
    """The body as JSON. Raises BadInput."""
    return parsed(await request.body())


def explained(errors: Sequence[Any]) -> str:
    """Validation errors as one sentence."""
    parts = []
    for one in errors[:3]:
        field = ".".join(str(part) for part in one.get("loc", ()) if part not in ("body", "query", "path"))
        parts.append(f"{field or 'body'}: {str(one.get('msg', '')).removeprefix('Value error, ')}")
    return "; ".join(parts)


def paged(items: list[Json], total: int, page: Page, select: Sequence[str] | None = None) -> Response:
    """A page of a list, with how much there is in the headers."""
    headers = {"X-Pagination-Total": str(total)}
    if page.offset + len(items) < total:
        headers["X-Pagination-Next"] = str(page.offset + len(items))
    return answer(selected(items, select), headers=headers)


def selected(items: list[Json], select: Sequence[str] | None) -> list[Json]:
    """Only the fields that were asked for; "values.topic" asks for one key of the values."""
    return items if not select else [_picked(one, select) for one in items]


def _picked(one: Json, select: Sequence[str]) -> Json:
    found = {key: one[key] for key in select if key in one}
    for key in select:
        field, _, inner = key.partition(".")
        if inner and field not in select and isinstance(one.get(field), dict):
            found.setdefault(field, {}).update({inner: one[field][inner]} if inner in one[field] else {})
    return found


def described(kind: type[BaseModel], *, needed: bool = True, several: bool = False) -> Json:
    """For the OpenAPI document: the body that an endpoint reads by itself."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    if several:
        schema = {"type": "array", "items": schema}
    return {"requestBody": {"content": {JSON: {"schema": schema}}, "required": needed}}
