"""The benchmark's claims: never worse than LRU in any scenario, in entries and in bytes."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "residency.py"
SPEC = importlib.util.spec_from_file_location("bench_residency", FILE)
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)


@pytest.mark.parametrize("in_bytes", [True, False])
@pytest.mark.parametrize("scenario", [one for one in bench.SCENARIOS if one.adapters <= 500], ids=str)
def test_every_step_helps_and_none_beats_the_future(scenario, in_bytes):
    today, cached, worth, ours, best = bench.measured(scenario, 20_000, 0, in_bytes=in_bytes).values()
    assert cached.mean < today.mean
    assert worth.mean <= 1.02 * cached.mean
    assert best.mean <= ours.mean < worth.mean
