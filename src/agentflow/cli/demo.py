"""The demo: eight turns over two threads through the real HTTP door; nothing is left behind."""

import importlib.util
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import httpx

from agentflow.cli import house
from agentflow.cli.door import door
from agentflow.cli.terminal import Screen, out, steps
from agentflow.settings import Environment, load
from agentflow.wiring import Place

PARTS = ("torch", "transformers", "peft")
PATIENCE = 600_000.0
"""Milliseconds: the first answer waits until torch and the base model are loaded, however slow the machine is."""


@dataclass(frozen=True)
class Line:
    """What is said, and in which of the two conversations."""

    thread: str
    text: str


SCRIPT = (
    Line("Monday", "What is justice?"),
    Line("Monday", "/philosopher My dog is called Biscuit."),
    Line("Monday", "Write a function that reverses a string"),
    Line("Monday", "Describe a sunset over the sea"),
    Line("Tuesday", "/coder What is my dog called?"),
    Line("Tuesday", "/artist What is my dog called?"),
    Line("Tuesday", "/philosopher What is my dog called?"),
    Line("Tuesday", "How do I read a file in Python?"),
)


async def play(environment: Environment) -> None:
    """Run the script. Raises AgentflowError if a turn fails."""
    with tempfile.TemporaryDirectory(prefix="agentflow-demo-", ignore_cleanup_errors=True) as folder:
        place = _place(Path(folder), environment)
        began = time.perf_counter()
        async with AsyncExitStack() as stack:
            with steps("starting agentflow") as progress:
                address = await stack.enter_async_context(door(place, progress=progress))
            client = await stack.enter_async_context(house.client(address, {}))
            out.print(
                f"\nagentflow listens on {address} after {time.perf_counter() - began:.1f} s", highlight=False
            )
            await _converse(client)
    _goodbye()


async def _converse(client: httpx.AsyncClient) -> None:
    threads: dict[str, str] = {}
    screen = Screen()
    for line in SCRIPT:
        if line.thread not in threads:
            out.rule(f"{line.thread}: a new thread", style="dim")
        out.print(f"[bold]you[/]  {line.text}")
        async for event in house.turn(client, {"input": line.text, "thread_id": threads.get(line.thread)}):
            screen.show(event)
            if "thread_id" in event:
                threads[line.thread] = event["thread_id"]


def _place(folder: Path, environment: Environment) -> Place:
    """The example configuration in a folder of its own; without torch the stand-in engine answers."""
    example = resources.files("agentflow.settings") / "agentflow.example.yaml"
    file = folder / "agentflow.yaml"
    text = example.read_text(encoding="utf-8")
    if missing := [part for part in PARTS if importlib.util.find_spec(part) is None]:
        text = text.replace("engine: local ", "engine: double ")
        out.print(
            f"[yellow]{', '.join(missing)} not installed: a stand-in answers instead of the model.[/] "
            r"For real voices: pip install 'agentflow\[local]' (the CPU build of torch is enough)."
        )
    file.write_text(text, encoding="utf-8")
    own = Environment(variables={}, config=file, cache=environment.cache, fault=None)
    settings = load(file, own)
    patient = {name: one.model_copy(update={"cold_max_ms": PATIENCE}) for name, one in settings.roles.items()}
    return Place(settings.model_copy(update={"roles": patient}), own, folder)


def _goodbye() -> None:
    out.rule(style="dim")
    out.print("All of it lay in a real Postgres with pgvector, now stopped and removed. Next:")
    out.print("  agentflow init          writes agentflow.yaml: your model, adapters and roles")
    out.print("  agentflow config check  explains every mistake in it")
    out.print("  agentflow serve         serves it; POST /invoke, /docs")
    out.print("  agentflow chat          talks in this terminal")
