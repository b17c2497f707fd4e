"""How the vLLM driver meets a server that dies, restarts, hangs or tells little: on the double."""

import asyncio
import json
import shutil
import socket
from contextlib import aclosing
from functools import partial

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.engines.vllm import Timeouts, Vllm
from agentflow.errors import AdapterError, EngineDown, EngineTimeout, GenerationFailed, NoRoom, PromptRefused
from agentflow.fakes.vllm import Options, serve
from agentflow.protocols import Capabilities, Loaded, Prompt, Said

HASTY = Timeouts(connect=1, first_token=0.2, between_tokens=0.2, total=5, control=0.5)


@pytest.fixture
def folder(tmp_path):
    def write(name: str):
        home = tmp_path / name
        home.mkdir()
        (home / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
        key = "base_model.model.model.layers.0.self_attn.q_proj.lora"
        save_file({f"{key}_A.weight": np.ones((2, 4)), f"{key}_B.weight": np.ones((4, 2))}, home / WEIGHTS)
        return home

    return write


@pytest.fixture
def double():
    with serve(Options()) as served:
        yield served


@pytest.fixture
async def engine(double):
    driver = Vllm(double.url)
    yield driver
    await driver.close()


async def say(engine, adapter=None, text="Hello", **options) -> str:
    prompt = Prompt([{"role": "user", "content": text}], **options)
    async with aclosing(engine.generate(prompt, adapter=adapter)) as stream:
        return "".join([piece.text async for piece in stream])


@pytest.fixture
def dead_url():
    """Taken, so that nobody else gets it, and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


# --- servers that do not answer


async def test_a_dead_address_is_engine_down(tmp_path, dead_url):
    engine = Vllm(dead_url, base="base")
    for asked in (say(engine), engine.loaded(), engine.load("a@1", tmp_path), engine.unload("a@1")):
        with pytest.raises(EngineDown, match="does not answer"):
            await asked
    await engine.close()


async def test_the_health_of_a_dead_address_is_a_sentence(dead_url):
    engine = Vllm(dead_url)
    health = await engine.health()
    assert (health.ok, "does not answer" in health.detail) == (False, True)
    await engine.close()


async def test_a_server_that_answers_503_is_down(double, engine):
    double.state.change(down=True)
    with pytest.raises(EngineDown, match="The server is down"):
        await say(engine)


async def test_a_hanging_answer_times_out(double, engine):
    double.state.change(hang=True)
    hasty = Vllm(double.url, timeouts=HASTY)
    with pytest.raises(EngineTimeout, match=r"within 0\.2 s"):
        await say(hasty)
    await hasty.close()
    double.state.change(hang=False)
    assert await say(engine) == "[base] You said: Hello"


async def test_a_pause_between_tokens_times_out(double):
    double.state.change(tokens_per_second=2)
    engine = Vllm(double.url, timeouts=HASTY)
    with pytest.raises(EngineTimeout, match="go on with its answer"):
        await say(engine)
    await engine.close()


async def test_an_answer_has_a_limit_altogether(double):
    double.state.change(tokens_per_second=10)
    engine = Vllm(double.url, timeouts=Timeouts(total=0.5))
    with pytest.raises(EngineTimeout):
        await say(engine, text="word " * 50)
    await engine.close()


async def test_a_timed_out_load_is_a_timeout(double, folder):
    double.state.change(load=2)
    engine = Vllm(double.url, timeouts=Timeouts(total=0.2))
    with pytest.raises(EngineTimeout, match="load_lora_adapter"):
        await engine.load("a@1", folder("a"))
    await engine.close()


async def test_something_that_is_no_model_server_is_down():
    async def greet(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1") as server:
        engine = Vllm(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(EngineDown, match="not a model server"):
            await say(engine)
        await engine.close()


# --- what the driver asks for


async def test_the_url_may_end_in_v1(double):
    engine = Vllm(f"{double.url}/v1/")
    assert await say(engine) == "[base] You said: Hello"
    await engine.close()


async def test_the_served_base_name_is_discovered(double):
    double.state.change(base="Qwen/Qwen3-0.6B")
    engine = Vllm(double.url)
    assert await say(engine) == "[base] You said: Hello"
    await engine.close()


async def test_a_base_the_server_does_not_serve_is_named(double):
    engine = Vllm(double.url, base="other")
    with pytest.raises(GenerationFailed, match=r"'other', only \['base'\]"):
        await say(engine)
    await engine.close()


async def test_the_key_is_sent(double):
    double.state.change(api_key="secret")
    engine = Vllm(double.url, api_key="secret")
    assert await say(engine) == "[base] You said: Hello"
    await engine.close()


async def test_a_missing_key_is_named(double, engine):
    double.state.change(api_key="secret")
    with pytest.raises(GenerationFailed, match="Unauthorized"):
        await say(engine)


async def test_a_refused_parameter_is_named(engine):
    with pytest.raises(GenerationFailed, match="top_p must be") as caught:
        await say(engine, top_p=2.0)
    assert caught.value.field == "top_p"


async def test_an_answer_in_the_reasoning_field_is_the_answer(double, engine):
    double.state.change(thinks_aloud=True)
    assert await say(engine) == "[base] You said: Hello"


async def test_memory_in_the_prompt_reaches_the_answer(engine):
    text = '<memory>\n- user (2026-11-22): "I like \\u003ctea>"\n</memory>\nWhat do I like?'
    assert await say(engine, text=text) == "[base] You said: What do I like? I remember: I like <tea>"


async def test_closing_the_iterator_cancels_the_request(double, engine, soon):
    double.state.change(hang=True)
    stream = engine.generate(Prompt([{"role": "user", "content": "Hello"}]), adapter=None)
    waiting = asyncio.ensure_future(anext(stream))
    await soon(lambda: double.state.running)
    waiting.cancel()
    await soon(lambda: not double.state.running)


# --- unload that frees


async def test_unload_frees_the_weights_where_the_rpc_is(double, engine, folder):
    await engine.load("a@1", folder("a"))
    await engine.load("b@1", folder("b"))
    await engine.unload("a@1")
    assert double.state.slots.in_host_cache == [2]
    assert engine.capabilities == Capabilities(True, True, True, False, True, tools=True, structured=True)


async def test_without_the_rpc_unload_forgets_the_name_only(double, engine, folder):
    double.state.change(dev_mode=False)
    await engine.load("a@1", folder("a"))
    await engine.unload("a@1")
    assert double.state.slots.in_host_cache == [1]
    assert engine.capabilities == Capabilities(True, False, False, False, True, tools=True, structured=True)
    assert await engine.loaded() == []


async def test_ids_are_learned_although_failed_loads_burn_some(double, engine, folder, tmp_path):
    with pytest.raises(AdapterError):
        await engine.load("gone@1", tmp_path / "gone")
    await asyncio.gather(*(engine.load(f"{name}@1", folder(name)) for name in "abc"))
    await engine.unload("b@1")
    assert double.state.slots.in_host_cache == [2, 4]


async def test_weights_are_freed_only_after_the_last_answer(double, engine, folder):
    await engine.load("a@1", folder("a"))
    double.state.change(tokens_per_second=50)
    stream = engine.generate(Prompt([{"role": "user", "content": "Hello"}]), adapter="a@1")
    await anext(stream)
    unloading = asyncio.create_task(engine.unload("a@1"))
    await asyncio.sleep(0.02)
    assert double.state.slots.in_host_cache == [1]
    await stream.aclose()
    await unloading
    assert double.state.slots.in_host_cache == []


async def test_an_adapter_that_left_the_host_cache_is_not_called_loaded(engine, folder):
    for name in "abcdefg":
        await engine.load(f"{name}@1", folder(name))
    assert [found.name[0] for found in await engine.loaded()] == list("bcdefg")


async def test_when_all_is_pinned_there_is_no_room(double, engine, folder):
    for name in "abcd":
        await engine.load(f"{name}@1", folder(name))
        double.state.slots.pin(ord(name) - ord("a") + 1)
    with pytest.raises(NoRoom, match="every adapter in the engine is pinned"):
        await engine.load("e@1", folder("e"))
    assert await say(engine, "a@1") == "[a] You said: Hello"


# --- pins


async def test_a_pin_holds_the_slot_and_unpin_lets_it_go(double, folder):
    engine = Vllm(double.url)
    for name in "abcdefgh":
        await engine.load(f"{name}@1", folder(name))
        await engine.pin("a@1")
    assert 1 in double.state.slots.in_slots
    assert [found.name for found in await engine.loaded() if found.pinned] == ["a@1"]
    await engine.unpin("a@1")
    for name in "bcde":
        await say(engine, f"{name}@1")
    assert 1 not in double.state.slots.in_slots
    await engine.close()


async def test_the_last_free_slot_is_never_pinned(double, folder):
    engine = Vllm(double.url)
    for name in "abcd":
        await engine.load(f"{name}@1", folder(name))
    for name in "ab":
        await engine.pin(f"{name}@1")
    with pytest.raises(NoRoom, match="'c@1' cannot be pinned: 2 adapters are, and of its 4 slots"):
        await engine.pin("c@1")
    double.state.change(mixes_up_base=False)
    await engine.pin("c@1")
    with pytest.raises(NoRoom, match="'d@1' cannot be pinned: 3 adapters are"):
        await engine.pin("d@1")
    await engine.load("e@1", folder("e"))
    assert await say(engine, "e@1") == "[e] You said: Hello"
    await engine.close()


async def test_a_rank_above_the_servers_is_told_with_the_flag(double, engine, folder):
    double.state.change(max_lora_rank=1)
    with pytest.raises(AdapterError, match="larger --max-lora-rank"):
        await engine.load("a@1", folder("a"))


async def test_without_the_rpc_there_are_no_pins(double, folder):
    double.state.change(dev_mode=False)
    engine = Vllm(double.url)
    await engine.load("a@1", folder("a"))
    with pytest.raises(AdapterError, match="VLLM_SERVER_DEV_MODE"):
        await engine.pin("a@1")
    await engine.close()


async def test_a_server_that_would_mix_up_voices_is_refused(double, folder):
    engine = Vllm(double.url, slots=4)
    with pytest.raises(AdapterError, match=r"Set model\.slots to 3, or start the engine with --max-loras 5"):
        await engine.load("a@1", folder("a"))
    double.state.change(mixes_up_base=False)
    await engine.load("b@1", folder("b"))
    await engine.close()


# --- restarts


async def test_a_restart_is_counted_once(double, engine, folder):
    await engine.load("a@1", folder("a"))
    await engine.load("b@1", folder("b"))
    double.state.registry.clear()
    assert await engine.loaded() == []
    assert await engine.loaded() == []
    assert engine.restarts == 1


async def test_a_restart_is_noticed_when_ids_begin_again(double, engine, folder):
    for name in "abc":
        await engine.load(f"{name}@1", folder(name))
    double.state.restart()
    await engine.load("d@1", folder("d"))
    assert engine.restarts == 1
    await engine.unload("d@1")
    assert double.state.slots.in_host_cache == [1]
    assert await say(engine, "a@1") == "[a] You said: Hello"


async def test_a_load_that_was_given_up_is_taken_out_afterwards(double, folder, soon):
    double.state.change(load=0.5)
    engine = Vllm(double.url, timeouts=Timeouts(total=0.2))
    with pytest.raises(EngineTimeout):
        await engine.load("a@1", folder("a"))
    await soon(lambda: "a@1" in double.state.registry)
    with pytest.raises(GenerationFailed, match="not loaded"):
        await say(engine, "a@1")
    assert await engine.loaded() == []
    assert double.state.registry == {}
    await engine.close()


async def test_ids_are_learned_although_a_load_was_given_up(double, folder, soon):
    double.state.change(load=0.5)
    engine = Vllm(double.url, timeouts=Timeouts(total=0.3))
    with pytest.raises(EngineTimeout):
        await engine.load("a@1", folder("a"))
    double.state.change(load=0)
    await soon(lambda: "a@1" in double.state.registry)
    for name in "ba":
        await engine.load(f"{name}@1", folder(name) if name == "b" else double.state.registry["a@1"][1])
    await engine.unload("b@1")
    assert double.state.registry["a@1"][0] in double.state.slots.in_host_cache
    await engine.unload("a@1")
    assert double.state.slots.in_host_cache == [1]
    await engine.close()


async def test_what_a_restarted_server_forgot_is_registered_again(double, engine, folder):
    await engine.load("a@1", folder("a"))
    double.state.registry.clear()
    assert await say(engine, "a@1") == "[a] You said: Hello"
    assert list(double.state.registry) == ["a@1"]


async def test_what_was_unloaded_is_not_registered_again(double, engine, folder):
    await engine.load("a@1", folder("a"))
    await engine.unload("a@1")
    with pytest.raises(GenerationFailed, match=r"'a@1' is not loaded"):
        await say(engine, "a@1")


async def test_after_an_outage_adapters_are_registered_before_they_speak(double, engine, folder):
    await engine.load("a@1", folder("a"))
    double.state.change(down=True)
    with pytest.raises(EngineDown):
        await say(engine, "a@1")
    double.state.change(down=False)
    double.state.registry.clear()
    assert await say(engine, "a@1") == "[a] You said: Hello"


async def test_an_outage_that_lost_nothing_is_survived(double, engine, folder):
    await engine.load("a@1", folder("a"))
    double.state.change(down=True)
    with pytest.raises(EngineDown):
        await engine.loaded()
    double.state.change(down=False)
    assert await say(engine, "a@1") == "[a] You said: Hello"
    assert await engine.loaded() == [Loaded("a@1", "vram", exact=False)]


async def test_an_adapter_lost_with_its_files_is_told(double, engine, folder):
    await engine.load("a@1", home := folder("a"))
    double.state.registry.clear()
    shutil.rmtree(home)
    with pytest.raises(GenerationFailed, match="files of 'a@1' are gone"):
        await say(engine, "a@1")


async def test_an_adapter_whose_files_are_gone_never_reaches_the_engine(double, engine, folder):
    for name in "abcdefg":
        await engine.load(f"{name}@1", folder(name))
    shutil.rmtree(double.state.registry["a@1"][1])
    with pytest.raises(GenerationFailed, match="Put them back"):
        await say(engine, "a@1")
    assert await say(engine, "b@1") == "[b] You said: Hello"


async def test_a_name_the_server_had_before_us_is_taken_over(double, engine, folder):
    await engine.load("a@1", home := folder("a"))
    successor = Vllm(double.url)
    await successor.load("a@1", home)
    assert await say(successor, "a@1") == "[a] You said: Hello"
    await successor.close()


async def test_a_name_the_server_has_from_elsewhere_is_refused(double, engine, folder):
    await engine.load("a@1", folder("a"))
    successor = Vllm(double.url)
    with pytest.raises(AdapterError, match="already serves 'a@1' from"):
        await successor.load("a@1", folder("b"))
    await successor.close()


async def test_the_three_signs_of_a_dead_engine_are_all_engine_down(double, engine, folder, soon):
    await engine.load("a@1", folder("a"))
    double.state.dead = True
    for _ in range(2):
        with pytest.raises(EngineDown, match="EngineCore"):
            await say(engine, "a@1")
    assert not (await engine.health()).ok
    double.state.when_dead()
    await soon(partial(refused, double.url))
    with pytest.raises(EngineDown, match="Connect"):
        await say(engine, "a@1")


def refused(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.ConnectError:
        return True
    return False


async def test_an_answer_that_dies_midway_is_engine_down(double, engine):
    double.state.change(tokens_per_second=20)
    stream = engine.generate(Prompt([{"role": "user", "content": "word " * 200}]), adapter=None)
    await anext(stream)
    double.state.dead = True
    with pytest.raises(EngineDown, match="EngineCore"):
        [piece async for piece in stream]


async def test_a_connection_cut_midway_is_engine_down(double, engine):
    double.state.change(tokens_per_second=20)
    stream = engine.generate(Prompt([{"role": "user", "content": "word " * 200}]), adapter=None)
    await anext(stream)
    double.state.when_dead()
    with pytest.raises((EngineDown, GenerationFailed)):
        [piece async for piece in stream]


async def test_tool_calls_and_structured_answers_come_through(engine):
    look = {"type": "object", "properties": {"place": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "look", "parameters": look}}]
    asked = [{"role": "user", "content": "call the tool"}]
    said = Said()
    async for piece in engine.generate(Prompt(asked, tools=tools), adapter=None):
        said.hear(piece)
    assert (said.finish, "".join(said.texts)) == ("tool_calls", "")
    assert [one["function"] for one in said.calls()] == [
        {"name": "look", "arguments": '{"place": "call the tool"}'}
    ]
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": look}}
    pieces = [one.text async for one in engine.generate(Prompt(asked, response_format=shape), adapter=None)]
    assert set(json.loads("".join(pieces))) == {"place"}


async def test_a_prompt_that_the_engine_refuses_is_the_callers_matter(engine):
    with pytest.raises(PromptRefused, match=r"top_p must be in \(0, 1\]"):
        async for _ in engine.generate(Prompt([{"role": "user", "content": "hi"}], top_p=2), adapter=None):
            pass
