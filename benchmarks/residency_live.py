"""Residency on a running engine: what cold adapters add to the first token, begun early or on demand.

`python benchmarks/residency.py --live vllm --url http://127.0.0.1:8000` (or `--live local`, `--live double`): 500
requests over 40 adapters and 8 slots, through the product's own keeper. `always warm` asks only for as many adapters
as there are slots: what the others are compared with. `ours` begins the load when the role is
known, before 50 ms of recall; `on demand` when it is needed, with no copies in memory. Server: `agentflow engine`.
"""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from agentflow import telemetry, tiny
from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.protocols import Engine, Keeper, Prompt
from agentflow.settings import Settings, read_environment
from agentflow.wiring import Place, silent
from agentflow.wiring import residency as tiers
from agentflow.wiring.choices import adapters as checked
from agentflow.wiring.engines import engine as opened

Mode = Literal["always warm", "on demand", "ours"]
MODES: tuple[Mode, ...] = get_args(Mode)
RECALL = 0.05
QUESTION = Prompt([{"role": "user", "content": "What is justice?"}], max_tokens=1)


@dataclass(frozen=True)
class Asked:
    """The engine and the trace: so many requests over so many adapters and slots."""

    engine: str
    url: str
    requests: int = 500
    adapters: int = 40
    slots: int = 8


def trace(asked: Asked) -> list[str]:
    """Roles as 1/rank, and three times out of four the one before."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, asked.adapters + 1)
    drawn = rng.choice(asked.adapters, asked.requests, p=weights / weights.sum())
    for place in range(1, asked.requests):
        if rng.random() < 0.75:
            drawn[place] = drawn[place - 1]
    return [f"role{one}" for one in drawn]


@contextmanager
def folders(count: int) -> Iterator[dict[str, Path]]:
    """Copies of the shipped adapters; another alpha makes each an adapter of its own."""
    with tempfile.TemporaryDirectory(prefix="agentflow-bench-") as home:
        made = {}
        for number in range(count):
            source = tiny.FOLDER / tiny.VOICES[number % len(tiny.VOICES)]
            folder = Path(home) / f"role{number}"
            folder.mkdir()
            config = json.loads((source / CONFIG).read_text()) | {"lora_alpha": 16 + number / 1000}
            (folder / CONFIG).write_text(json.dumps(config))
            shutil.copy(source / WEIGHTS, folder / WEIGHTS)
            made[folder.name] = folder
        yield made


async def measured(asked: Asked, mode: Mode) -> np.ndarray:
    """Milliseconds from the end of recall to the first token, for every request."""
    roles = trace(asked)
    if mode == "always warm":
        roles = [f"role{int(role.removeprefix('role')) % asked.slots}" for role in roles]
    with folders(asked.adapters) as found:
        model = {
            "engine": asked.engine,
            "url": asked.url,
            "slots": asked.slots,
            "max_rank": 8,
            "device": "cpu",
        }
        if mode == "on demand":
            model["ram"] = 0
        told = {name: {"lora_path": str(path), "warm": "demand"} for name, path in found.items()}
        place = Place(
            Settings.model_validate({"model": model, "roles": told}), read_environment(), Path.cwd()
        )
        async with AsyncExitStack() as stack:
            engine = await opened(place, stack, silent)
            stack.push_async_callback(engine.close)
            keeper = await tiers.keeper(
                place, stack, engine, await checked(place, silent), tiers.cache(place, stack)
            )
            took = await _walked(engine, keeper, roles, early=mode == "ours")
            for name in {keeper.identity(role) for role in told} - {None}:
                await engine.unload(str(name))
    first = {roles.index(role) for role in roles} if mode == "always warm" else set()
    return np.array([ms for place, ms in enumerate(took) if place not in first])


async def _walked(engine: Engine, keeper: Keeper, roles: Sequence[str], *, early: bool) -> list[float]:
    took = []
    for role in roles:
        if early:
            keeper.warm(role)
        await asyncio.sleep(RECALL)
        took.append(await _first_token(engine, keeper, role))
    return took


async def _first_token(engine: Engine, keeper: Keeper, role: str) -> float:
    began = time.perf_counter()
    async with keeper.hold(role) as adapter:
        answer = engine.generate(QUESTION, adapter=adapter)
        await anext(answer)
        took = time.perf_counter() - began
        await answer.aclose()
    return took * 1e3


def main(asked: Asked) -> None:
    telemetry.configure(readable=True, level="warning")
    grid = Table(
        title=f"{asked.engine}: {asked.requests} requests, {asked.adapters} adapters, {asked.slots} slots"
    )
    for heading in ("", "mean to the first token", "p50", "p95", "p99", "added to always warm: mean"):
        grid.add_column(heading, justify="right" if heading else "left")
    means: dict[str, float] = {}
    for mode in MODES:
        took = asyncio.run(measured(asked, mode))
        means[mode] = float(took.mean())
        added = means[mode] - means["always warm"]
        spread = (f"{value:.1f}" for value in np.percentile(took, [50, 95, 99]))
        grid.add_row(mode, f"{took.mean():.1f} ms", *spread, f"{added:.2f} ms")
    Console(width=120).print(grid)
    ours, on_demand = (means[mode] - means["always warm"] for mode in ("ours", "on demand"))
    print(f"ours / on demand: {ours / on_demand:.2f} of the mean added")
