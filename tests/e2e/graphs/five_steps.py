"""A graph of five steps over messages, steered by what the last message says; the conformance tests drive it.

"slowly" takes two seconds in small naps, "endlessly" five minutes, "hold" waits for a file `go` in the server's folder,
"break" raises ValueError, "approve" asks a person.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict

NAPS = {(False, False): 0, (True, False): 20, (False, True): 3000}


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    topic: str
    voice: str
    notes: list[str]


async def sort(state: State) -> dict[str, Any]:
    return {"topic": "talk"}


async def cast(state: State) -> dict[str, Any]:
    get_stream_writer()({"step": "cast", "voice": "plain"})
    return {"voice": "plain"}


async def gather(state: State) -> dict[str, Any]:
    text = str(state["messages"][-1].content)
    for _ in range(NAPS["slowly" in text, "endlessly" in text]):
        await asyncio.sleep(0.1)
    while "hold" in text and not Path("go").exists():  # noqa: ASYNC110, ASYNC240 - made by a test
        await asyncio.sleep(0.05)
    if "break" in text:
        raise ValueError("it broke as asked")
    if "approve" in text:
        return {"notes": [f"a person said {interrupt({'question': 'may I?'})}"]}
    return {"notes": ["one"]}


async def speak(state: State) -> dict[str, Any]:
    said = AIMessage(f"heard: {state['messages'][-1].content} {state.get('notes')}")
    model = GenericFakeChatModel(messages=iter([said]))
    return {"messages": [await model.ainvoke(state["messages"])]}


async def file_away(state: State) -> dict[str, Any]:
    return {}


STEPS = (sort, cast, gather, speak, file_away)
builder = StateGraph(State)
for step in STEPS:
    builder.add_node(step.__name__, step)
names = [step.__name__ for step in STEPS]
for before, after in zip([START, *names], [*names, END], strict=True):
    builder.add_edge(before, after)
graph = builder.compile()


def made(config: dict[str, Any]) -> Any:
    """The same from a factory, uncompiled."""
    return builder
