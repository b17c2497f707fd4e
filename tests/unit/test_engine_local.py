# ruff: noqa: PLC0415 - torch takes seconds to import: only tests that run need it
"""What the local engine promises beyond the contract: one batch, real unloading, clear refusals."""

import asyncio
import json
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

import agentflow.tiny
from agentflow.engines.local import LocalEngine
from agentflow.errors import AdapterError, ConfigError, EngineDown, GenerationFailed, StartError
from agentflow.protocols import Prompt

TINY = Path(agentflow.tiny.__file__).parent
QUESTIONS = ("Hello.", "What do you think about the sea and about the ships on it?", "Who are you?")

pytestmark = pytest.mark.local


@pytest.fixture
async def engine():
    made = LocalEngine(TINY / "base", threads=1)
    yield made
    await made.close()


async def say(engine, adapter=None, text=QUESTIONS[0], **options) -> str:
    prompt = Prompt([{"role": "user", "content": text}], **({"max_tokens": 40} | options))
    async with aclosing(engine.generate(prompt, adapter=adapter)) as stream:
        return "".join([piece.text async for piece in stream])


def _reference(question: str, adapter: str | None) -> str:
    """The same answer by transformers' own generate."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY / "base")
    model = AutoModelForCausalLM.from_pretrained(TINY / "base", dtype="float32").eval()
    if adapter:
        model = PeftModel.from_pretrained(model, TINY / adapter)
    chat = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    tokens = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    return tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_building_the_engine_does_not_import_torch():
    building = "import sys; from agentflow.engines.local import LocalEngine; LocalEngine('x')"
    code = f"{building}; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


async def test_rows_that_join_and_leave_answer_as_transformers_does():
    """Prompts of three lengths, two voices, room for two at a time: rows join and leave."""
    narrow = LocalEngine(TINY / "base", threads=1, max_batch=2)
    await narrow.load("artist@1", TINY / "artist")
    asked = [(question, adapter) for question in QUESTIONS for adapter in (None, "artist@1")]
    answers = await asyncio.gather(*(say(narrow, adapter, question) for question, adapter in asked))
    await narrow.close()
    assert answers == [_reference(question, "artist" if adapter else None) for question, adapter in asked]


async def test_adapters_of_different_ranks_share_a_batch(engine, tmp_path):
    """The artist again at rank 16: its matrices padded with zeros, so its answers stay the same."""
    await engine.load("artist@1", TINY / "artist")
    await engine.load("wide@1", _widened(TINY / "artist", tmp_path / "wide"))
    await engine.load("coder@1", TINY / "coder")
    narrow, wide, other, _ = await asyncio.gather(
        *(say(engine, name, QUESTIONS[1]) for name in ("artist@1", "wide@1", "coder@1", None))
    )
    assert narrow == wide == _reference(QUESTIONS[1], "artist")
    assert other == _reference(QUESTIONS[1], "coder")


def _widened(source: Path, target: Path) -> Path:
    import torch
    from safetensors.torch import load_file, save_file

    target.mkdir()
    config = json.loads((source / "adapter_config.json").read_text())
    rank = config["r"]
    config |= {"r": 2 * rank, "lora_alpha": 2 * config["lora_alpha"]}
    (target / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(source / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        axis = 0 if ".lora_A." in name else 1
        tensors[name] = torch.cat([tensor, torch.zeros_like(tensor)], dim=axis).contiguous()
    save_file(tensors, target / "adapter_model.safetensors")
    return target


async def test_unloading_frees_every_parameter(engine):
    await say(engine)
    before = _parameters(engine)
    await engine.load("artist@1", TINY / "artist")
    await engine.load("coder@1", TINY / "coder")
    assert _parameters(engine) > before
    await engine.unload("artist@1")
    await engine.unload("coder@1")
    assert _parameters(engine) == before


def _parameters(engine) -> int:
    return sum(parameter.numel() for parameter in engine._decoder._model._base.parameters())


async def test_an_adapter_for_another_base_leaves_no_trace(engine, tmp_path):
    before = await say(engine)
    folder = _cut(TINY / "artist", tmp_path / "cut")
    for _ in range(2):
        with pytest.raises(AdapterError, match=r"other \(in, out\) sizes"):
            await engine.load("cut@1", folder)
        await engine.load("artist@1", TINY / "artist")
    assert await say(engine) == before


def _cut(source: Path, target: Path) -> Path:
    from safetensors.torch import load_file, save_file

    target.mkdir()
    (target / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    tensors = load_file(source / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        if ".lora_A." in name:
            tensors[name] = tensor[:, :-1].contiguous()
    save_file(tensors, target / "adapter_model.safetensors")
    return target


async def test_a_pickled_adapter_is_never_read(engine, tmp_path):
    (tmp_path / "adapter_config.json").write_bytes((TINY / "artist/adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(AdapterError, match="is a pickle"):
        await engine.load("evil@1", tmp_path)


async def test_more_answers_than_the_batch_wait_their_turn():
    single = LocalEngine(TINY / "base", threads=1, max_batch=1)
    answers = await asyncio.gather(*(say(single, None, question) for question in QUESTIONS * 2))
    await single.close()
    assert answers == [_reference(question, None) for question in QUESTIONS] * 2


async def test_a_waiting_answer_can_be_cancelled():
    single = LocalEngine(TINY / "base", threads=1, max_batch=1)
    await single.start()
    first = asyncio.create_task(say(single, None, temperature=5.0, max_tokens=400))
    second = asyncio.create_task(say(single))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await first
    assert await say(single) == _reference(QUESTIONS[0], None)
    await single.close()


async def test_a_cancelled_answer_stops_being_made(engine):
    await engine.start()
    model = engine._decoder._model
    model.ends, steps = frozenset(), []
    step = model.step
    model.step = lambda *rows: steps.append(1) or step(*rows)
    stream = engine.generate(Prompt([{"role": "user", "content": "Hello."}], max_tokens=1900), adapter=None)
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(30):
        while engine.running:  # noqa: ASYNC110 - another thread counts
            await asyncio.sleep(0.01)
    assert len(steps) < 1800


async def test_a_prompt_longer_than_the_base_reads_is_refused(engine):
    with pytest.raises(GenerationFailed, match="reads at most 2048") as caught:
        await say(engine, text="sea " * 3000)
    assert caught.value.field == "max_tokens"


async def test_a_fault_of_the_model_fails_the_answers_at_hand_only(engine):
    await engine.start()
    model = engine._decoder._model
    step, model.step = model.step, lambda *_: 1 / 0
    with pytest.raises(GenerationFailed, match="division by zero"):
        await say(engine)
    model.step = step
    assert await say(engine) == _reference(QUESTIONS[0], None)


async def test_a_fault_while_prompts_are_read_is_told_to_those_who_asked(engine):
    await engine.start()
    model = engine._decoder._model
    start, model.start = model.start, lambda *_: 1 / 0
    with pytest.raises(GenerationFailed, match="division by zero"):
        await say(engine)
    model.start = start
    assert await say(engine) == _reference(QUESTIONS[0], None)


async def test_a_fault_of_the_loop_itself_ends_the_engine_with_a_reason(engine):
    await engine.start()
    engine._decoder._turn = lambda: 1 / 0
    with pytest.raises(EngineDown, match="fault of its own"):
        await say(engine)
    assert not (await engine.health()).ok


async def test_closing_fails_what_is_under_way(engine):
    await engine.start()
    answer = asyncio.create_task(say(engine, temperature=5.0, max_tokens=900))
    await asyncio.sleep(0.05)
    await engine.close()
    with pytest.raises(EngineDown, match="has been closed"):
        await answer
    assert not engine._decoder.is_alive()


async def test_a_base_that_cannot_be_read_is_a_configuration_error_every_time(tmp_path):
    engine = LocalEngine(tmp_path)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"model\.base"):
            await say(engine)
    assert not (await engine.health()).ok
    await engine.close()


async def test_without_the_extra_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "agentflow.engines.local.model", None)
    engine = LocalEngine(TINY / "base")
    with pytest.raises(StartError, match=r"pip install 'agentflow\[local\]' \(the CPU build"):
        await say(engine)
    await engine.close()


async def test_progress_is_told_before_the_model_is_read():
    told = []
    engine = LocalEngine(TINY / "base", threads=1, progress=told.append)
    await engine.start()
    await engine.close()
    assert told == [f"loading the base model {TINY / 'base'}"]


async def test_the_engine_serves_one_event_loop_after_another():
    engine = LocalEngine(TINY / "base", threads=1)
    first, second = [await asyncio.to_thread(asyncio.run, say(engine)) for _ in range(2)]
    await engine.close()
    assert first == second == _reference(QUESTIONS[0], None)
