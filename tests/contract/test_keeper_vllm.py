"""The keeper over the real vLLM: copies in memory come and go under links, the engine lives and speaks rightly."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow.adapters import inspect
from agentflow.engines.vllm import Vllm
from agentflow.protocols import Prompt
from agentflow.residency.carrier import Shelves
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.plan import Budgets
from agentflow.residency.roster import Adapter, Residence, stamp_of
from agentflow.shelves.ram import RamPool
from agentflow.speech.wire import Timeouts

pytestmark = pytest.mark.vllm
VOICES = {"philosopher": ("my friend",), "coder": ("```python",), "artist": ("brush", "canvas", "paint")}


@pytest.fixture
async def keeper(vllm_url, tiny_folders, tmp_path) -> AsyncIterator[AdapterKeeper]:
    engine = Vllm(vllm_url, timeouts=Timeouts(first_token=120, between_tokens=120, control=60))
    files = {
        name.partition("@")[0]: inspect(folder, base=None, max_rank=8)
        for name, folder in tiny_folders.items()
    }
    roster = {
        role: Adapter(role, one, residence=Residence(unload_after=None), stamp=stamp_of(one.folder))
        for role, one in files.items()
    }
    pool = RamPool(tmp_path / "memory")
    room_for_two = int(2.5 * max(one.bytes for one in files.values()))
    made = AdapterKeeper(engine, roster, Budgets(2, room_for_two), shelves=Shelves(None, pool))
    yield made
    for role in files:
        await made.pin(role, None)
        await made.unload(role)
    await made.close()
    await engine.close()
    pool.close(clear=True)


async def voice(keeper: AdapterKeeper, role: str) -> str:
    """Whose words are heard."""
    async with keeper.hold(role) as name:
        prompt = Prompt([{"role": "user", "content": "hello"}], max_tokens=24)
        text = "".join([piece.text async for piece in keeper.engine.generate(prompt, adapter=name)])
    return next((known for known, words in VOICES.items() if any(word in text for word in words)), text)


async def test_three_adapters_on_two_slots_speak_as_themselves_whatever_moves(keeper) -> None:
    for role in ("philosopher", "coder", "artist", "philosopher", "artist", "coder"):
        assert await voice(keeper, role) == role
    assert keeper.capacities()["vram"]["used"] == 2


async def test_a_copy_leaves_memory_under_a_registered_name_and_the_engine_lives(keeper, tmp_path) -> None:
    assert await voice(keeper, "coder") == "coder"
    keeper.squeeze("ram", 1.0)
    await keeper.settled()
    assert list((Path(tmp_path) / "memory" / "copies").iterdir()) == []
    for _ in range(2):
        assert await voice(keeper, "coder") == "coder"
        assert await voice(keeper, "artist") == "artist"
    assert (await keeper.engine.health()).ok


async def test_after_a_reconciliation_the_keeper_and_the_engine_agree(keeper) -> None:
    await voice(keeper, "coder")
    await keeper.unload("coder")
    await voice(keeper, "artist")
    await keeper.reconcile()
    listed = {one.name.partition("@")[0] for one in await keeper.engine.loaded()}
    assert listed == {place.role for place in keeper.places() if place.speaks} == {"artist"}
