"""The double has vLLM's quirks: bodies and codes as recorded from vllm 0.32 in facts about engines."""

import asyncio
import json

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.fakes.vllm import Options, double


@pytest.fixture
def app():
    return double(Options(max_loras=2, max_cpu_loras=3, max_lora_rank=8))


@pytest.fixture
async def client(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://double") as client:
        yield client


@pytest.fixture
def folder(tmp_path):
    def write(name="a", weights=b"", **changes):
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        (home / CONFIG).write_text(json.dumps({"r": 2} | changes))
        key = "base_model.model.layers.0.self_attn.q_proj.lora"
        save_file({f"{key}_A.weight": np.ones(2), f"{key}_B.weight": np.zeros(2)}, home / WEIGHTS)
        if weights:
            (home / WEIGHTS).write_bytes(weights)
        return str(home)

    return write


def load(client, name, path, **more):
    return client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path} | more)


def chat(client, model, **more):
    messages = [{"role": "user", "content": "Hi"}]
    return client.post("/v1/chat/completions", json={"model": model, "messages": messages} | more)


async def rpc(client, method, *args):
    return (await client.post("/collective_rpc", json={"method": method, "args": list(args)})).json()


async def test_success_is_plain_text(client, folder):
    loaded = await load(client, "a", folder())
    unloaded = await client.post("/v1/unload_lora_adapter", json={"lora_name": "a"})
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'a' added successfully.")
    assert (unloaded.status_code, unloaded.text) == (200, "Success: LoRA adapter 'a' removed successfully.")


async def test_an_error_has_message_type_param_and_code(client):
    answer = await chat(client, "nobody")
    message = "The model `nobody` does not exist. Valid aliases: base."
    expected = {"message": message, "type": "NotFoundError", "param": "model", "code": 404}
    assert (answer.status_code, answer.json()) == (404, {"error": expected})


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"r": 16}, 500, "LoRA rank 16 is greater than max_lora_rank 8."),
        ({"use_dora": True}, 500, "vLLM does not yet support DoRA."),
        ({"weights": b"\1\0"}, 500, "Error while deserializing header"),
    ],
)
async def test_a_failed_load_leaves_the_server_alive(client, folder, changes, status, message):
    answer = await load(client, "a", folder(**changes))
    assert (answer.status_code, answer.json()["error"]["message"]) == (status, message)
    assert (await client.get("/health")).status_code == 200


async def test_a_missing_folder_is_a_404(client):
    answer = await load(client, "a", "/nowhere")
    expected = "Loading lora a failed: No adapter found for <path>"
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, expected)


async def test_zeros_and_wrong_shapes_are_accepted_in_silence(client, folder):
    assert (await load(client, "a", folder())).status_code == 200


@pytest.mark.parametrize(
    ("name", "message"), [("a", "already been loaded"), ("base", "conflicts with a served")]
)
async def test_a_taken_name_is_refused(client, folder, name, message):
    await load(client, "a", folder())
    answer = await load(client, name, folder())
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize("body", [{"lora_name": "a"}, {"lora_name": "", "lora_path": "x"}, []])
async def test_missing_fields_are_refused(client, body):
    answer = await client.post("/v1/load_lora_adapter", json=body)
    assert answer.status_code == 400


async def test_another_content_type_is_refused(client):
    answer = await client.post("/v1/load_lora_adapter", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 400


async def test_load_in_place_is_never_needed(client, folder):
    assert (await load(client, "a", folder(), load_inplace=True)).status_code == 400


async def test_failed_loads_burn_ids_and_a_reload_gets_a_new_one(client, folder):
    await load(client, "gone", "/nowhere")
    await load(client, "a", folder())
    await client.post("/v1/unload_lora_adapter", json={"lora_name": "a"})
    await load(client, "a", folder())
    assert await rpc(client, "list_loras") == {"results": [[2, 3]]}


async def test_the_host_cache_forgets_the_least_recently_used(client, folder):
    for name in "abc":
        await load(client, name, folder(name))
    await chat(client, "a")
    await load(client, "d", folder("d"))
    assert await rpc(client, "list_loras") == {"results": [[1, 3, 4]]}


async def test_remove_frees_and_the_next_request_reads_the_files_again(client, folder):
    await load(client, "a", folder())
    assert [await rpc(client, "remove_lora", 1) for _ in range(2)] == [
        {"results": ["True"]},
        {"results": ["False"]},
    ]
    assert (await chat(client, "a")).status_code == 200
    assert await rpc(client, "list_loras") == {"results": [[1]]}


async def test_with_all_slots_pinned_a_load_fails_and_the_server_lives(client, folder):
    for number, name in enumerate("ab", start=1):
        await load(client, name, folder(name))
        assert await rpc(client, "pin_lora", number) == {"results": ["True"]}
    answer = await load(client, "c", folder("c"))
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "All items are pinned")
    assert (await client.get("/health")).status_code == 200


async def test_pinning_what_is_not_there_fails(client):
    answer = await rpc(client, "pin_lora", 99)
    assert answer["error"]["message"] == "Pinning failed. LoRA 99 is not registered."


async def test_a_request_for_an_adapter_beside_pinned_slots_kills_the_engine(client, folder):
    await load(client, "c", folder("c"))
    for number, name in enumerate("ab", start=2):
        await load(client, name, folder(name))
        await rpc(client, "pin_lora", number)
    assert (await chat(client, "c")).status_code == 500
    assert (await client.get("/health")).status_code == 503


async def test_the_rpc_is_there_in_development_mode_only(app, client):
    app.state.double.change(dev_mode=False)
    assert (await client.post("/collective_rpc", json={"method": "list_loras"})).status_code == 404


async def test_the_key_guards_only_v1(app, client):
    app.state.double.change(api_key="k")
    assert (await client.get("/v1/models")).status_code == 401
    assert await rpc(client, "list_loras") == {"results": [[]]}


async def test_models_list_names_not_residency(client, folder):
    path = folder()
    await load(client, "a", path)
    await rpc(client, "remove_lora", 1)
    rows = (await client.get("/v1/models")).json()["data"]
    assert [(row["id"], row["root"], row["parent"]) for row in rows] == [
        ("base", "base", None),
        ("a", path, "base"),
    ]


async def test_a_whole_answer_has_text_and_usage(client, folder):
    await load(client, "sage@0123", folder())
    answer = (await chat(client, "sage@0123")).json()
    assert answer["choices"][0]["message"]["content"] == "[sage] You said: Hi"
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}


async def test_usage_ends_a_stream_only_when_asked_for(client):
    plain = await chat(client, "base", stream=True)
    asked = await chat(client, "base", stream=True, stream_options={"include_usage": True})
    assert ("usage" in plain.text, "usage" in asked.text) == (False, True)
    assert asked.text.endswith("data: [DONE]\n\n")


async def test_base_beside_adapters_on_a_full_server_speaks_in_the_last_slots_voice(app, client, folder):
    for name in "ab":
        await load(client, name, folder(name))
    app.state.double.change(tokens_per_second=50)
    busy = asyncio.create_task(chat(client, "a"))
    await asyncio.sleep(0.03)
    mixed = (await chat(client, "base")).json()["choices"][0]["message"]["content"]
    await busy
    assert mixed == "[b] You said: Hi"


async def test_more_adapters_than_slots_wait_their_turn(app, client, folder):
    for name in "abc":
        await load(client, name, folder(name))
    answers = await asyncio.gather(*(chat(client, name) for name in "abcabc"))
    voices = [answer.json()["choices"][0]["message"]["content"][1] for answer in answers]
    assert voices == list("abcabc")
