"""Whatever is asked of the vLLM driver in whatever order, the server never dies and nobody speaks in a wrong voice."""

import asyncio
import json
import shutil
import tempfile
from contextlib import aclosing, suppress
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.engines.vllm import Vllm
from agentflow.errors import AgentflowError
from agentflow.fakes.vllm import Options, serve
from agentflow.protocols import Prompt

NAMES = "abcdefgh"
NAMED = ("load", "unload", "pin", "unpin", "say", "begin", "delete")
STEPS = st.tuples(st.sampled_from(NAMED), st.sampled_from(NAMES)) | st.sampled_from(
    [("restart", ""), ("list", "")]
)


class World:
    """A driver on a double with three slots, and adapters whose files may vanish."""

    def __init__(self, served, home: Path) -> None:
        self.double, self.home = served.state, home
        self.engine = Vllm(served.url, slots=2)
        self.heard: list[tuple[str, str]] = []
        self.begun: list[asyncio.Task] = []

    async def do(self, step: str, name: str) -> None:
        """Errors of ours are answers too; anything else is a fault."""
        with suppress(AgentflowError):
            await getattr(self, step)(*([name] if name else []))

    async def load(self, name) -> None:
        await self.engine.load(f"{name}@1", self._written(name))

    async def unload(self, name) -> None:
        await self.engine.unload(f"{name}@1")

    async def pin(self, name) -> None:
        await self.engine.pin(f"{name}@1")

    async def unpin(self, name) -> None:
        await self.engine.unpin(f"{name}@1")

    async def say(self, name) -> None:
        prompt = Prompt([{"role": "user", "content": "Hello"}])
        async with aclosing(self.engine.generate(prompt, adapter=f"{name}@1")) as pieces:
            self.heard.append((name, "".join([piece.text async for piece in pieces])))

    async def begin(self, name) -> None:
        self.begun.append(asyncio.create_task(self.do("say", name)))

    async def delete(self, name) -> None:
        """As the keeper does: only what is unloaded; or as somebody does who should not."""
        shutil.rmtree(self.home / name, ignore_errors=True)

    async def restart(self) -> None:
        await asyncio.gather(*self.begun)
        self.double.restart()

    async def list(self) -> None:
        known = {one.name for one in await self.engine.loaded()}
        assert known <= set(self.double.registry)

    def _written(self, name: str) -> Path:
        folder = self.home / name
        if not folder.is_dir():
            folder.mkdir()
            (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
            key = "base_model.model.model.layers.0.self_attn.q_proj.lora"
            save_file(
                {f"{key}_A.weight": np.ones((2, 4)), f"{key}_B.weight": np.ones((4, 2))}, folder / WEIGHTS
            )
        return folder


async def live(served, home: Path, steps) -> World:
    world = World(served, home)
    for step, name in steps:
        await world.do(step, name)
    await asyncio.gather(*world.begun)
    await world.engine.close()
    return world


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=25))
def test_the_server_never_dies_and_every_voice_is_right(steps):
    with serve(Options(max_loras=3, max_cpu_loras=4)) as served, tempfile.TemporaryDirectory() as home:
        world = asyncio.run(live(served, Path(home), steps))
        assert not served.state.dead
        assert [text for name, text in world.heard if text != f"[{name}] You said: Hello"] == []
