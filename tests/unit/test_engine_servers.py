"""What is peculiar to each model server, on its double."""

import asyncio
import json
import shutil
from contextlib import aclosing, contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.engines.llamacpp import LlamaCpp
from agentflow.engines.lorax import Lorax
from agentflow.engines.ollama import Ollama
from agentflow.engines.sglang import Sglang
from agentflow.engines.textgen import TextGen
from agentflow.engines.tgi import Tgi
from agentflow.errors import AdapterError, EngineDown, GenerationFailed, NoRoom
from agentflow.fakes.llamacpp import LlamaCppDouble
from agentflow.fakes.lorax import LoraxDouble
from agentflow.fakes.ollama import OllamaDouble
from agentflow.fakes.scene import listening
from agentflow.fakes.sglang import SglangDouble
from agentflow.fakes.textgen import TextGenDouble
from agentflow.fakes.tgi import TgiDouble
from agentflow.protocols import Prompt
from agentflow.speech.chat import Speech

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["choices", "usage", "delta", "finish_reason", "content", "tool_calls", "reasoning"])


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


@contextmanager
def served(double):
    with listening(double.app()) as url:
        yield url


async def say(engine, adapter=None) -> str:
    prompt = Prompt([{"role": "user", "content": "Hello"}])
    async with aclosing(engine.generate(prompt, adapter=adapter)) as stream:
        return "".join([piece.text async for piece in stream])


# --- SGLang


async def test_sglang_keeps_one_slot_unpinned(folder):
    with served(double := SglangDouble(max_loras=2)) as url:
        engine = Sglang(url, slots=2)
        for name in ("a@1", "b@1"):
            await engine.load(name, folder(name))
        await engine.pin("a@1")
        with pytest.raises(NoRoom, match="'b@1' cannot be pinned: 1 adapters are"):
            await engine.pin("b@1")
        assert {name: pinned for name, (_, pinned) in double.loaded.items()} == {"a@1": True, "b@1": False}
        await engine.close()


async def test_a_restarted_sglang_is_given_its_adapters_again(folder):
    with served(double := SglangDouble()) as url:
        engine = Sglang(url)
        await engine.load("a@1", folder("a"))
        double.loaded.clear()
        assert await say(engine, "a@1") == "[a] You said: Hello"
        assert (list(double.loaded), engine.restarts) == (["a@1"], 1)
        await engine.close()


async def test_sglang_loads_again_after_an_outage(folder):
    with served(double := SglangDouble()) as url:
        engine = Sglang(url)
        await engine.load("a@1", folder("a"))
        double.scene.fault = "503"
        with pytest.raises(EngineDown):
            await say(engine, "a@1")
        double.scene.fault, double.loaded = None, {}
        assert await say(engine, "a@1") == "[a] You said: Hello"
        await engine.close()


# --- LoRAX, TGI


async def test_lorax_reads_an_adapter_at_its_first_request_from_its_folder(folder):
    home = folder("a")
    with served(double := LoraxDouble()) as url:
        engine = Lorax(url)
        await engine.load("a@1", home)
        assert double.read == [str(home)]
        await engine.close()


async def test_what_tgi_was_not_started_with_is_told_with_the_way_out(folder):
    home = folder("b")
    with served(TgiDouble("a")) as url:
        engine = Tgi(url)
        with pytest.raises(AdapterError, match=f"set LORA_ADAPTERS=b={home} and restart"):
            await engine.load("b@1", home)
        await engine.close()


async def test_tgi_is_asked_for_the_digest_before_the_role(folder):
    with served(TgiDouble("a@1", "a")) as url:
        engine = Tgi(url)
        await engine.load("a@1", folder("a"))
        assert await say(engine, "a@1") == "[a] You said: Hello"
        await engine.close()


# --- llama.cpp


async def test_what_llama_cpp_was_not_started_with_is_told_with_the_way_out(folder):
    with served(LlamaCppDouble("/models/other.gguf")) as url:
        engine = LlamaCpp(url)
        with pytest.raises(AdapterError, match=r"convert_lora_to_gguf\.py.* call it a\.gguf"):
            await engine.load("a@1", folder("a"))
        await engine.close()


async def test_a_gguf_file_in_the_adapters_folder_is_its_own_through_links_too(folder, tmp_path):
    home = folder("a")
    (tmp_path / "link").symlink_to(home)
    with served(LlamaCppDouble("/models/a.gguf.old", str(home / "x.gguf"))) as url:
        engine = LlamaCpp(url)
        await engine.load("a@1", tmp_path / "link")
        assert await say(engine, "a@1") == "[x] You said: Hello"
        await engine.close()


async def test_the_base_of_llama_cpp_speaks_with_every_scale_at_nothing():
    with served(LlamaCppDouble("a.gguf", "b.gguf")) as url:
        engine = LlamaCpp(url)
        assert await say(engine) == "[base] You said: Hello"
        await engine.close()


async def test_a_llama_cpp_that_came_back_with_other_ids_is_asked_for_the_right_ones(folder):
    with served(double := LlamaCppDouble("/m/a.gguf", "/m/b.gguf")) as url:
        engine = LlamaCpp(url)
        await engine.load("a@1", folder("a"))
        double.scene.fault = "503"
        with pytest.raises(EngineDown):
            await say(engine)
        double.scene.fault, double.paths = None, ["/m/b.gguf", "/m/a.gguf"]
        assert await say(engine, "a@1") == "[a] You said: Hello"
        await engine.close()


# --- Ollama


async def test_ollama_uploads_each_file_once(folder):
    home, other = folder("a"), folder("b")
    with served(double := OllamaDouble()) as url:
        engine = Ollama(url, base="llama3.2")
        await engine.load("a@1", home)
        await engine.load("b@1", other)
        assert (len(double.blobs), sorted(double.models)) == (2, ["agentflow-a:1", "agentflow-b:1"])
        await engine.close()


async def test_ollama_says_which_bases_take_safetensors(folder):
    with served(OllamaDouble(takes_safetensors=False)) as url:
        engine = Ollama(url, base="llama3.2")
        with pytest.raises(AdapterError, match=r"unsupported architecture.*GGUF"):
            await engine.load("a@1", home := folder("a"))
        (home / "a.gguf").write_bytes(b"GGUF")
        await engine.load("a@1", home)
        await engine.close()


async def test_a_base_that_ollama_does_not_have_is_named(folder):
    with served(OllamaDouble()) as url:
        engine = Ollama(url, base="tiny")
        with pytest.raises(AdapterError, match=r"'tiny' not found.*model\.base = tiny"):
            await engine.load("a@1", folder("a"))
        await engine.close()


async def test_a_pin_of_ollama_outlasts_its_requests(folder):
    with served(double := OllamaDouble()) as url:
        engine = Ollama(url, base="llama3.2")
        await engine.load("a@1", folder("a"))
        await engine.pin("a@1")
        await say(engine, "a@1")
        assert double.present["agentflow-a:1"] == -1
        await engine.unpin("a@1")
        assert double.present["agentflow-a:1"] == "5m"
        await engine.close()


async def test_an_ollama_model_that_left_by_itself_is_not_called_resident(folder):
    with served(double := OllamaDouble()) as url:
        engine = Ollama(url, base="llama3.2")
        await engine.load("a@1", folder("a"))
        double.present.clear()
        assert await engine.loaded() == []
        assert await say(engine, "a@1") == "[a] You said: Hello"
        await engine.close()


# --- text-generation-webui


async def test_textgen_switches_only_when_nobody_speaks(folder):
    with served(double := TextGenDouble("a", "b")) as url:
        engine = TextGen(url)
        for name in ("a@1", "b@1"):
            await engine.load(name, folder(name[0]))
        double.scene.tokens_per_second = 100
        speakers = ["a@1", None, "b@1", "a@1", "b@1", None]
        answers = await asyncio.gather(*(say(engine, name) for name in speakers))
        assert answers == [f"[{(name or 'base')[:4].partition('@')[0]}] You said: Hello" for name in speakers]
        await engine.close()


async def test_a_cancelled_speaker_of_textgen_lets_the_next_one_in(folder):
    with served(double := TextGenDouble("a")) as url:
        engine = TextGen(url)
        await engine.load("a@1", folder("a"))
        double.scene.fault = "hang"
        hanging = asyncio.create_task(say(engine))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(say(engine, "a@1"))
        await asyncio.sleep(0.1)
        hanging.cancel()
        double.scene.fault = None
        assert await waiting == "[a] You said: Hello"
        await engine.close()


async def test_what_textgen_does_not_have_is_told_with_the_way_out(folder):
    with served(TextGenDouble("a")) as url:
        engine = TextGen(url)
        with pytest.raises(AdapterError, match=r"its loras folder holds \['a'\].*there as b"):
            await engine.load("b@1", folder("b"))
        await engine.close()


# --- anything that comes over the wire


@given(st.dictionaries(FIELDS, JSON | st.lists(st.dictionaries(FIELDS, JSON), max_size=2), max_size=4))
def test_any_event_is_a_piece_or_an_error_of_ours(event):
    speech = Speech("base")
    try:
        pieces = [*speech.hear(event), speech.last()]
    except GenerationFailed:
        return
    assert all(isinstance(piece.text, str) for piece in pieces)


@pytest.mark.parametrize("kind", [Sglang, LlamaCpp, TextGen])
async def test_another_server_at_the_address_is_engine_down(kind, folder):
    with served(LoraxDouble()) as url:
        engine = kind(url)
        with pytest.raises((EngineDown, AdapterError, GenerationFailed)):
            await engine.load("a@1", folder("a"))
        assert not (await engine.health()).ok
        await engine.close()


async def test_a_folder_that_vanished_is_an_adapter_error(folder):
    home = folder("a")
    shutil.rmtree(home)
    with served(LoraxDouble()) as url:
        engine = Lorax(url)
        with pytest.raises(AdapterError, match="there is no folder"):
            await engine.load("a@1", home)
        await engine.close()
