"""What a request may hold, the same at every door: JSON of a bounded depth, and text that a database can keep."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import Field
from starlette.responses import Response

from agentflow.api.once import claimed, once
from agentflow.errors import BadInput

DEPTH = 64
BOM = b"\xef\xbb\xbf"
NUL = "\x00"
Number = Annotated[int, Field(ge=0, lt=2**63)]
"""An id or a count of rows, as Postgres has them."""


class DoorRoute(APIRoute):
    """Reads bodies by `parsed`, whatever door they come to, and does once what is asked for under one key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            check_address(request)
            strictly = _Strict(request.scope, request.receive)
            if claimed(request.method, request.url.path):
                return await once(strictly, partial(handle, strictly))
            return await handle(strictly)

        return strict


class _Strict(Request):
    async def json(self) -> Any:
        return parsed(await self.body())


def parsed(body: bytes) -> Any:
    """A body as JSON.

    Python's own reader takes NaN, halves of surrogate pairs and any depth, which nothing behind it can write down.
    Raises BadInput.
    """
    try:
        found = orjson.loads(body.removeprefix(BOM))
    except orjson.JSONDecodeError as error:
        raise BadInput(f"The body is not JSON in UTF-8: {error}.", field="body") from None
    level = [found]
    for _ in range(DEPTH + 1):
        if any(NUL in one for one in level if isinstance(one, str)):
            raise BadInput("The body holds a NUL character (\\u0000); no text has one.", field="body")
        level = [inner for one in level for inner in _within(one)]
        if not level:
            return found
    raise BadInput(f"The body is nested more than {DEPTH} levels deep.", field="body")


def check_address(request: Request) -> None:
    """Raises BadInput for a NUL in path or query: ids and filters that no row can have."""
    if NUL in request.url.path or b"%00" in request.scope["query_string"]:
        raise BadInput("The address holds a NUL character (%00); no text has one.", field="url")


def _within(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []
