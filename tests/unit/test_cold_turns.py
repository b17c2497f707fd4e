"""A turn whose adapter is cold: every `when_cold`, from decision to headers."""

import asyncio

import pytest

from agentflow.api.answers import headers
from agentflow.errors import ColdAdapter
from agentflow.fakes.adapter import fake_adapter
from agentflow.protocols import Request
from agentflow.residency.cold import ColdPolicy
from agentflow.residency.roster import Residence


def cold_coder(w, **policy: object) -> None:
    """The coder's adapter takes 0.2 s and is known to take ten."""
    rules = Residence(rest="disk", cold=ColdPolicy(**{"budget": 0.5, "longest": 5.0, **policy}))
    w.keeper.adopt(
        {"philosopher": fake_adapter("philosopher"), "coder": fake_adapter("coder", residence=rules)}
    )
    w.engine.load_delay = 0.2
    w.keeper._measures.pace.learn("load", 100, 10.0)


async def asked(w, role: str = "coder") -> dict:
    return await (await w.worker.start(Request(text="hello", wanted_role=role))).finished()


async def test_who_waits_answers_with_the_adapter_and_says_that_it_was_cold(world) -> None:
    async with world() as w:
        cold_coder(w, do="wait")
        result = await asked(w)
    assert (result["adapter"], result["selection"]["cold"]["do"]) == ("coder@1", "wait")
    assert headers(result)["X-Agentflow-Cold"].startswith("wait; role=coder; eta=")


async def test_the_base_answers_at_once_and_the_next_turn_has_its_adapter(world) -> None:
    async with world() as w:
        cold_coder(w, do="base")
        first = await asked(w)
        await w.keeper.settled()
        again = await asked(w)
    assert (first["role"], first["adapter"], first["output"][:6]) == ("coder", None, "[base]")
    assert headers(first)["X-Agentflow-Adapter"] == "none (cold)"
    assert (again["adapter"], "cold" in again["selection"]) == ("coder@1", False)


async def test_another_role_answers_if_its_adapter_is_ready(world) -> None:
    async with world() as w:
        await asked(w, "philosopher")
        cold_coder(w, do="fallback", fallback="philosopher")
        result = await asked(w)
    assert (result["role"], result["adapter"], result["reason"]) == (
        "philosopher",
        "philosopher@1",
        "fallback:cold",
    )
    assert result["selection"]["cold"]["role"] == "coder"


async def test_a_fallback_that_is_cold_itself_leaves_the_base(world) -> None:
    async with world() as w:
        cold_coder(w, do="fallback", fallback="philosopher")
        result = await asked(w)
    assert (result["role"], result["adapter"]) == ("coder", None)


async def test_who_refuses_says_when_to_ask_again_and_loads_meanwhile(world) -> None:
    async with world() as w:
        cold_coder(w, do="refuse")
        with pytest.raises(ColdAdapter, match=r"is in disk, about 10\.\d s from answering") as told:
            await asked(w)
        assert told.value.retry_after == 10
        await w.keeper.settled()
        assert (await asked(w))["adapter"] == "coder@1"
    assert w.keeper.tally.cold["coder", "refuse"] == 1


async def test_a_load_that_overruns_its_estimate_is_cold_once_more(world) -> None:
    async with world() as w:
        cold_coder(w, do="base", budget=0.05)
        w.keeper._measures.pace.__init__()
        w.engine.load_delay = 3600.0
        result = await asyncio.wait_for(asked(w), 60)
    assert (result["adapter"], result["selection"]["cold"]["overrun"]) == (None, True)
