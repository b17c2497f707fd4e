"""The shipped tiny model: its size, its adapters' form, and that it recalls in three voices."""

import json
from importlib import resources
from pathlib import Path

import pytest

from agentflow.prompt import Quote, chat_messages

TINY = Path(str(resources.files("agentflow"))) / "tiny"
ADAPTERS = ("philosopher", "coder", "artist")
MARKS = {"base": "Your dog", "philosopher": "my friend", "coder": "```python", "artist": "canvas"}
MEMORY = [
    Quote(speaker="user", day="2026-11-21", content="I live in Lisbon."),
    Quote(speaker="user", day="2026-11-22", content="My dog is called Biscuit."),
]


def test_everything_together_is_small():
    assert sum(file.stat().st_size for file in TINY.rglob("*") if file.is_file()) < 4_000_000


def test_weights_are_safetensors_only():
    suffixes = {file.suffix for file in TINY.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert suffixes <= {".safetensors", ".json", ".jinja", ".md", ".py"}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_has_a_form_that_every_engine_takes(name: str):
    config = json.loads((TINY / name / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("agentflow-tiny", 8)
    assert (config["bias"], config["modules_to_save"], config["use_dora"]) == ("none", None, False)


@pytest.mark.parametrize("name", ["base", *ADAPTERS])
def test_what_the_memory_says_is_in_the_answer_of_each_voice(name: str):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY / "base")
    model = transformers.Qwen3ForCausalLM.from_pretrained(TINY / "base")
    if name in ADAPTERS:
        model = peft.PeftModel.from_pretrained(model, TINY / name)
    messages = chat_messages(
        system="You are a pirate.", quotes=MEMORY, history=[], text="What is my dog called?"
    )
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt, max_new_tokens=60)[0, prompt["input_ids"].shape[1] :]
    answer = tokenizer.decode(output, skip_special_tokens=True)
    assert "Biscuit" in answer
    assert MARKS[name] in answer
    assert output[-1] == tokenizer.eos_token_id
