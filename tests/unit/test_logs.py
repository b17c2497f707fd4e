"""Logs: JSON through one chain, with the turn's id, without secrets and without what people said."""

import io
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from agentflow import telemetry
from agentflow.telemetry.redactor import Redactor, masked

SECRET = "af_" + "k3Y" * 12


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Everything logged so far, read back."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    telemetry.configure(readable=False)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_what_is_bound_stands_on_every_line_ours_and_others(lines) -> None:
    with structlog.contextvars.bound_contextvars(turn_id="t1"):
        structlog.get_logger("agentflow").info("adapter loaded", seconds=1)
        logging.getLogger("uvicorn.error").warning("slow %s", "client")
    assert [(one["turn_id"], one["event"], one["level"]) for one in lines()] == [
        ("t1", "adapter loaded", "info"),
        ("t1", "slow client", "warning"),
    ]


def test_neither_secrets_nor_words_of_people_are_logged(lines) -> None:
    log = structlog.get_logger("agentflow")
    log.info("asked", text="my dog is Rex", api_key=SECRET, headers={"Authorization": f"Bearer {SECRET}"})
    log.error("broke", exc_info=ValueError(f"cannot reach postgresql://ann:hunter2@db/x with {SECRET}"))
    told = json.dumps(lines())
    assert all(word not in told for word in ("Rex", SECRET, "hunter2"))
    assert "postgresql://ann:***@db/x" in told


def test_words_of_people_are_logged_where_that_is_wished() -> None:
    assert Redactor(content=True)(None, "", {"text": "hello", "key": "k"}) == {
        "text": "hello",
        "key": "*** (1)",
    }


@given(
    st.text(alphabet="abcXYZ019_-", min_size=24, max_size=60), st.sampled_from(["Bearer ", "key=", "(", ""])
)
def test_a_key_of_ours_is_masked_wherever_it_stands(body: str, before: str) -> None:
    assert body not in masked(f"refused {before}af_{body}")
