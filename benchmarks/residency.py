"""Residency in the simulator: what the tiers and the RAM policy save, beside what engines do and the optimum.

`make bench-residency`. Figures are simulated; ratios and shares are what they are for. Traffic: forty live
sessions that mostly stay with their role or follow a chain of roles, popularity as 1/rank that drifts, and
bursts; three adapters in ten come from afar.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

from agentflow.residency.foresight import Cargo, Outcome, SetUp, Visit, lru_alone, optimum, replay, share

MB = 1_000_000
SESSIONS, TURNS, RATE = 40, 12.0, 2.0
BURST, BURST_SECONDS, BURST_SHARE = 0.0008, 60.0, 0.3
DRIFT_EVERY, DRIFT_SHARE = 4000, 0.05


@dataclass(frozen=True)
class Scenario:
    """How many adapters, slots in VRAM and adapters in RAM; how skewed and how sticky the traffic is."""

    name: str
    adapters: int
    slots: int
    ram: int
    skew: float = 1.0
    sticky: float = 0.8


SCENARIOS = (
    Scenario("small", 50, 8, 32),
    Scenario("mid", 500, 16, 128),
    Scenario("mid, flat", 500, 16, 128, skew=0.6),
    Scenario("mid, skewed", 500, 16, 128, skew=1.3),
    Scenario("mid, restless", 500, 16, 128, sticky=0.0),
    Scenario("mid, more VRAM", 500, 64, 256),
    Scenario("large", 5000, 32, 512),
    Scenario("large, little RAM", 5000, 64, 64),
)


def traffic(scenario: Scenario, requests: int, rng: np.random.Generator) -> Iterator[Visit]:
    """Requests of sessions; each session has a role at a time."""
    weights = 1.0 / np.arange(1, scenario.adapters + 1) ** scenario.skew
    ladder, ranks = np.cumsum(weights / weights.sum()), rng.permutation(scenario.adapters)
    chains: dict[int, list[int]] = {}
    role, left = [-1] * SESSIONS, [0] * SESSIONS
    now, burst, burst_ends = 0.0, -1, 0.0

    def draw() -> int:
        return int(ranks[min(int(np.searchsorted(ladder, rng.random())), scenario.adapters - 1)])

    for number in range(requests):
        now += rng.exponential(1 / RATE)
        session = int(rng.integers(SESSIONS))
        if left[session] <= 0:
            role[session], left[session] = draw(), int(rng.geometric(1 / TURNS))
        elif rng.random() > scenario.sticky:
            chain = chains.setdefault(role[session], [draw(), draw(), draw()])
            role[session] = chain[int(rng.integers(3))] if rng.random() < 0.7 else draw()
        left[session] -= 1
        if now > burst_ends and rng.random() < BURST:
            burst, burst_ends = int(rng.integers(scenario.adapters)), now + BURST_SECONDS
        wanted = burst if now < burst_ends and rng.random() < BURST_SHARE else role[session]
        yield Visit(now, str(wanted), str(session))
        if number % DRIFT_EVERY == DRIFT_EVERY - 1:
            moved = rng.choice(scenario.adapters, max(2, int(scenario.adapters * DRIFT_SHARE)), replace=False)
            ranks[moved] = ranks[rng.permutation(moved)]


def cargo(scenario: Scenario, rng: np.random.Generator) -> dict[str, Cargo]:
    sizes = rng.choice([16, 32, 64, 128], scenario.adapters)
    far = rng.random(scenario.adapters) < 0.3
    return {str(one): Cargo(int(sizes[one]) * MB, bool(far[one])) for one in range(scenario.adapters)}


def steps(scenario: Scenario, *, in_bytes: bool) -> dict[str, SetUp]:
    """From what engines do to what we do, one step at a time, and the optimum."""
    ours = SetUp(scenario.slots, scenario.ram * (60 * MB if in_bytes else 1), in_bytes=in_bytes, overlap=0.05)
    return {
        "LRU, as engines do": lru_alone(ours),
        "+ disk cache": replace(ours, ram_order="lru", overlap=0.0),
        "+ aged worth in RAM": replace(ours, overlap=0.0),
        "+ 50 ms behind recall": ours,
        "optimum (Belady)": optimum(ours),
    }


def measured(scenario: Scenario, requests: int, seed: int, *, in_bytes: bool) -> dict[str, Outcome]:
    rng = np.random.default_rng(seed)
    visits, loads = list(traffic(scenario, requests, rng)), cargo(scenario, rng)
    return {
        name: replay(visits, loads, setup, warm_up=0.2)
        for name, setup in steps(scenario, in_bytes=in_bytes).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=1, help="this many, averaged")
    parser.add_argument("--entries", action="store_true", help="cap RAM in adapters instead of bytes")
    parser.add_argument("--only", help="scenarios whose name begins so")
    parser.add_argument("--live", metavar="ENGINE", help="on a running engine instead: vllm, local or double")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="with --live: where its server listens"
    )
    asked = parser.parse_args()
    if asked.live:
        import residency_live  # noqa: PLC0415 - an engine, which the simulator does not need

        residency_live.main(residency_live.Asked(asked.live, asked.url, min(asked.requests, 500)))
        return
    chosen = [one for one in SCENARIOS if one.name.startswith(asked.only or "")]
    grid = Table(title="mean ms added before an answer can begin (p99); of LRU; share of the optimum")
    for heading in (
        "scenario",
        *steps(SCENARIOS[0], in_bytes=True),
        "ours / LRU",
        "policy alone",
        "of the optimum",
    ):
        grid.add_column(heading, justify="left" if heading == "scenario" else "right")
    for scenario in chosen:
        rounds = [
            measured(scenario, asked.requests, seed, in_bytes=not asked.entries)
            for seed in range(asked.seeds)
        ]
        grid.add_row(scenario.name, *_cells(rounds))
    Console(width=170).print(grid)


def _cells(rounds: list[dict[str, Outcome]]) -> list[str]:
    told = [
        f"{np.mean([one[name].mean for one in rounds]):.1f} ({np.mean([one[name].p99 for one in rounds]):.0f})"
        for name in rounds[0]
    ]
    lru, cached, worth, ours, best = rounds[0]
    ratio = np.mean([one[ours].mean / one[lru].mean for one in rounds])
    alone = np.mean([one[worth].mean / one[cached].mean for one in rounds])
    near = np.mean([share(one[best], one[ours]) for one in rounds])
    return [*told, f"{ratio:.2f}", f"{alone:.2f}", f"{near:.0%}"]


if __name__ == "__main__":
    main()
