"""Callers that hang up: what is done for them alone ends with them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import Response

from agentflow.ending import end

_T = TypeVar("_T")


class Gone(Exception):
    """The caller has hung up; nobody reads what is answered."""


def install(app: FastAPI) -> None:
    """What is answered to a caller who has gone: nothing."""

    async def gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=499)

    app.add_exception_handler(Gone, gone)


async def unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of the work, which is cancelled when the caller hangs up. Raises Gone then."""
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Gone
        return await doing
    finally:
        await end([doing, watching])


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
