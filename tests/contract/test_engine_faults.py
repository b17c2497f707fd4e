"""What goes wrong with a model server ends in the error tree, whichever engine it is; then it serves on."""

from contextlib import aclosing

import pytest

from agentflow.errors import EngineDown, EngineError, EngineTimeout, GenerationFailed
from agentflow.protocols import Prompt

ENGINES = ("sglang", "lorax", "tgi", "llamacpp", "ollama", "textgen")


@pytest.fixture(params=ENGINES)
async def broken(request, wired):
    """An engine, and the scene in which something goes wrong."""
    stand, scene = wired(request.param)
    yield stand.engine, scene
    await stand.engine.close()


@pytest.fixture(params=ENGINES)
async def hasty(request, wired):
    """The same, where a first token is not waited for long."""
    stand, scene = wired(request.param, first_token=3)
    yield stand.engine, scene
    await stand.engine.close()


async def say(engine, **options) -> str:
    prompt = Prompt([{"role": "user", "content": "Hello"}], **options)
    async with aclosing(engine.generate(prompt, adapter=None)) as stream:
        return "".join([piece.text async for piece in stream])


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("500", GenerationFailed, "told to fail"),
        ("503", EngineDown, "told to fail"),
        ("html", GenerationFailed, "proxy error"),
        ("garbage", GenerationFailed, "not JSON"),
        ("cut", EngineDown, "does not answer"),
        ("silence", GenerationFailed, "before its end"),
    ],
)
async def test_a_fault_has_its_place_in_the_tree_and_the_engine_serves_on(broken, fault, error, says):
    engine, scene = broken
    scene.fault = fault
    with pytest.raises(error, match=says):
        await say(engine)
    scene.fault = None
    assert await say(engine) == "[base] You said: Hello"


async def test_a_slow_first_token_is_a_timeout_and_the_request_is_cancelled(hasty):
    engine, scene = hasty
    scene.first_token = 30
    with pytest.raises(EngineTimeout, match="did not begin to answer"):
        await say(engine)
    scene.first_token = 0
    assert await say(engine) == "[base] You said: Hello"


async def test_a_load_that_meets_a_broken_server_is_an_engine_error(wired):
    stand, scene = wired("lorax")
    name, folder = next(iter(stand.adapters.items()))
    scene.fault = "503"
    with pytest.raises(EngineError):
        await stand.engine.load(name, folder)
    scene.fault = None
    await stand.engine.load(name, folder)
    assert [one.name for one in await stand.engine.loaded()] == [name]
    await stand.engine.close()
