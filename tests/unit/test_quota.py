"""Limits per key: refused with 429 and when to come back; what one key uses up another has."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from agentflow.api.keys import Gate
from agentflow.api.quota import Quota
from agentflow.errors import TooMany
from agentflow.fakes.spending import FakeSpending
from agentflow.settings.access import LimitSettings
from agentflow.telemetry import Metrics


def quota(**limits: object) -> Quota:
    return Quota(LimitSettings(**{"rate": None, **limits}), Metrics(), FakeSpending())


async def test_over_time_a_key_may_ask_so_often() -> None:
    mine = quota(rate="2/minute")
    for _ in range(2):
        async with mine.spent("ann"):
            pass
    with pytest.raises(TooMany, match="2/minute") as refused:
        async with mine.spent("ann"):
            pass
    assert 1 <= (refused.value.retry_after or 0) <= 60
    async with mine.spent("bob"):
        pass
    assert mine.metrics.registry.get_sample_value("agentflow_refused_total", {"limit": "rate"}) == 1


async def test_at_once_a_key_may_have_so_many_open() -> None:
    mine = quota(requests=2)
    async with mine.spent("ann"), mine.spent("ann"), mine.spent("bob"):
        with pytest.raises(TooMany, match="2 requests open"):
            async with mine.spent("ann"):
                pass
    async with mine.spent("ann"):
        pass


async def test_a_request_that_breaks_gives_its_place_back() -> None:
    mine = quota(requests=1)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with mine.spent("ann"):
                raise RuntimeError
    async with mine.spent("ann"):
        pass


async def test_a_door_answers_429_and_when_to_come_back() -> None:
    app, entered, go_on = FastAPI(), asyncio.Event(), asyncio.Event()

    @app.post("/invoke")
    async def slow() -> str:
        entered.set()
        await go_on.wait()
        return "done"

    gate = Gate(app, keys=None, api_key="k", quota=quota(requests=1))  # type: ignore[arg-type] # never asked
    transport = httpx.ASGITransport(gate)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://x", headers={"x-api-key": "k"}
    ) as client:
        first = asyncio.create_task(client.post("/invoke"))
        await entered.wait()
        second = await client.post("/invoke")
        go_on.set()
        assert (await first).status_code == 200
        assert (second.status_code, second.headers["retry-after"], second.json()["error"]) == (
            429,
            "1",
            "TooMany",
        )
        assert (await client.post("/invoke")).status_code == 200


@pytest.mark.parametrize("rate", ["20", "20/fortnight", "many/minute", "/minute"])
def test_a_rate_that_says_nothing_is_a_mistake(rate: str) -> None:
    with pytest.raises(ValidationError, match="such as 1200/minute"):
        LimitSettings(rate=rate)


async def test_whoever_has_no_limit_costs_nothing() -> None:
    free = Quota(LimitSettings(rate=None, requests=None), Metrics(), spending=None)  # type: ignore[arg-type] # never asked
    async with free.spent("ann"):
        pass
