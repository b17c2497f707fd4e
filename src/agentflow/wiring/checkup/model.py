"""What answers: engine, embedder, adapters, and whether they fit."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from agentflow.engines.vllm.server import Server, Started
from agentflow.errors import AdapterError
from agentflow.residency.roster import Adapter
from agentflow.speech.wire import Timeouts, Wire
from agentflow.wiring import choices, engines
from agentflow.wiring.checkup.host import installed
from agentflow.wiring.checkup.row import Row
from agentflow.wiring.forecast import Machine, forecast
from agentflow.wiring.place import Place, silent


async def engine(place: Place) -> Sequence[Row]:
    model = place.settings.model
    if model.engine == "local" and (
        missing := [one for one in ("torch", "transformers", "peft") if not installed(one)]
    ):
        return [
            Row("engine", "mistake", f"local lacks {', '.join(missing)}", "pip install 'agentflow[local]'")
        ]
    async with AsyncExitStack() as stack:
        driver = await engines.engine(place, stack, silent)
        stack.push_async_callback(driver.close)
        health = await driver.health()
        if not health.ok:
            return [
                Row(
                    "engine",
                    "mistake",
                    health.detail,
                    "start it (`agentflow engine start`), or mend model.url",
                )
            ]
        rows = [Row("engine", "ok", health.detail)]
        return [*rows, *await _flags(place)] if model.engine == "vllm" else rows


async def _flags(place: Place) -> Sequence[Row]:
    """VLLM's own figures beside the file's."""
    model = place.settings.model
    key = model.api_key.get_secret_value() if model.api_key else None
    wire = Wire(model.url, key, Timeouts(), lambda: None)
    try:
        started = await Server(wire).started()
    finally:
        await wire.close()
    if started is None:
        way = "start it by `agentflow engine start`, whose flags are those of the file"
        return [Row("engine flags", "warning", "the server does not tell how it was started", way)]
    return [compared(started, model.slots, model.max_rank)]


def compared(started: Started, slots: int, max_rank: int) -> Row:
    """The flags with which vLLM was started, held against the file."""
    told = f"--max-loras {started.max_loras}, --max-lora-rank {started.max_rank}"
    if started.usable < slots:
        return Row(
            "engine flags", "mistake", told, f"set model.slots to {started.usable}, or start it with more"
        )
    if started.max_rank < max_rank:
        return Row(
            "engine flags",
            "mistake",
            told,
            f"set model.max_rank to {started.max_rank}, or start it with more",
        )
    if started.max_loras > slots + 1:
        return Row(
            "engine flags", "warning", told, f"the file uses {slots} of them: the others only take memory"
        )
    return Row("engine flags", "ok", told)


async def embedder(place: Place) -> Sequence[Row]:
    made = choices.embedder(place, silent)
    try:
        began = time.perf_counter()
        await choices.opened(made)
        opened = time.perf_counter()
        await choices.opened(made)
        took = (time.perf_counter() - opened) * 1000
        return [
            Row(
                "embedder",
                "ok",
                f"{made.id}, {made.dim} numbers, opened in {opened - began:.1f} s, {took:.0f} ms",
            )
        ]
    finally:
        await made.close()


async def adapters(place: Place) -> Sequence[Row]:
    found = await choices.adapters(place, silent)
    broken = {role: one for role, one in found.items() if isinstance(one, AdapterError)}
    good = sum(isinstance(one, Adapter) for one in found.values())
    rows = [
        Row(
            "adapters",
            "ok",
            f"{good} usable, {len(found) - good - len(broken)} roles speak with the base alone",
        )
    ]
    way = "`agentflow adapters check` tells everything about its files"
    return rows + [Row(f"adapter of {role}", "mistake", error.message, way) for role, error in broken.items()]


async def plan(place: Place) -> Sequence[Row]:
    found = await asyncio.to_thread(forecast, place, Machine())
    rows = [Row("plan", "mistake", one, "`agentflow plan` shows the arithmetic") for one in found.mistakes]
    rows += [Row("plan", "warning", one, "`agentflow plan` shows the arithmetic") for one in found.warnings]
    return rows or [Row("plan", "ok", "everything fits")]
