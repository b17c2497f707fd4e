"""What a stop does to requests that outlast it."""

import asyncio

import pytest

from agentflow.cli.door import CutOff

START = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize(("begun", "told"), [([], [503, None]), ([START], [200])])
async def test_a_request_that_outlasts_the_stop_is_cut_off_without_an_error(begun, told) -> None:
    sent: list[int | None] = []

    async def app(_scope, _receive, send) -> None:
        for message in begun:
            await send(message)
        await asyncio.Event().wait()

    async def tell(message: dict) -> None:
        sent.append(message.get("status"))

    request = asyncio.create_task(CutOff(app)({"type": "http", "path": "/invoke"}, None, tell))
    await asyncio.sleep(0)
    request.cancel()
    await request
    assert sent == told
