"""A process that serves leaves what its start has made out of every search for cycles."""

import gc
from collections.abc import Iterator

import pytest

from agentflow.cli.door import YOUNG, settled


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_the_start_has_made_is_not_looked_at_again() -> None:
    made = [[number] for number in range(1000)]
    settled()
    assert gc.get_freeze_count() > len(made)
    assert gc.get_threshold() == YOUNG


def test_cycles_that_come_later_are_still_found() -> None:
    settled()
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
