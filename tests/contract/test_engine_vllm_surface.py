"""The double answers as a real vLLM does: one table, asked of both."""

import json
import shutil

import httpx
import pytest

from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.fakes.vllm import Options, serve


@pytest.fixture(params=["double", pytest.param("real", marks=pytest.mark.vllm)])
async def server(request):
    """A client of a server with base `base`, rank 8, length 1024 and one adapter `taken`."""
    if request.param == "real":
        url = request.getfixturevalue("vllm_url")
        adapters = request.getfixturevalue("tiny_folders")
    else:
        url = request.getfixturevalue("small_double")
        adapters = request.getfixturevalue("adapter_folders")
    fresh = httpx.Limits(max_keepalive_connections=0)  # after some errors a real server hangs up
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=fresh) as client:
        client.folder = next(iter(adapters.values()))
        await client.post(
            "/v1/load_lora_adapter", json={"lora_name": "taken", "lora_path": str(client.folder)}
        )
        yield client
        await client.post("/v1/unload_lora_adapter", json={"lora_name": "taken"})
        for lora_id in (await rpc(client, "list_loras")).json()["results"][0]:
            await rpc(client, "remove_lora", lora_id)  # a full server mixes up base answers: vllm#48421


@pytest.fixture
def small_double():
    with serve(Options(max_lora_rank=8, max_model_len=1024)) as served:
        yield served.url


def load(server, name, folder):
    return server.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})


def chat(server, **fields):
    body = {"model": "base", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    return server.post("/v1/chat/completions", json=body | fields)


def told(answer) -> tuple[int, str, str]:
    error = answer.json()["error"]
    assert error["code"] == answer.status_code
    return answer.status_code, error["type"], error["message"]


@pytest.fixture
def spoilt(server, tmp_path):
    def spoil(weights=None, **changes):
        shutil.copytree(server.folder, tmp_path / "copy")
        config = json.loads((server.folder / CONFIG).read_text()) | changes
        (tmp_path / "copy" / CONFIG).write_text(json.dumps(config))
        if weights is not None:
            (tmp_path / "copy" / WEIGHTS).write_bytes(weights)
        return tmp_path / "copy"

    return spoil


async def test_unknown_models_are_not_found(server):
    status, kind, message = told(await chat(server, model="nobody"))
    assert (status, kind) == (404, "NotFoundError")
    assert message.startswith("The model `nobody` does not exist.")


@pytest.mark.parametrize("fields", [{"max_tokens": 5000}, {"top_p": 7}])
async def test_parameters_out_of_range_are_named(server, fields):
    answer = await chat(server, **fields)
    assert told(answer)[:2] == (400, "BadRequestError")
    assert answer.json()["error"]["param"] == next(iter(fields))


async def test_a_missing_folder_is_not_found(server, tmp_path):
    status, kind, message = told(await load(server, "gone", tmp_path / "gone"))
    assert (status, kind) == (404, "NotFoundError")
    assert message.startswith("Loading lora gone failed: No adapter found for <path>")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"r": 16}, "LoRA rank 16 is greater than max_lora_rank 8."),
        ({"use_dora": True}, "vLLM does not yet support DoRA."),
        ({"weights": b""}, "Error while deserializing header"),
    ],
)
async def test_adapters_it_cannot_read_are_a_500(server, spoilt, changes, reason):
    status, kind, message = told(await load(server, "bad", spoilt(**changes)))
    assert (status, kind, reason in message) == (500, "InternalServerError", True)


async def test_a_folder_without_weights_is_a_500(server, spoilt):
    folder = spoilt()
    (folder / WEIGHTS).unlink()
    status, _, message = told(await load(server, "bad", folder))
    assert (status, "doesn't contain tensors" in message) == (500, True)


@pytest.mark.parametrize(
    ("name", "reason"), [("taken", "already been loaded"), ("base", "conflicts with a served")]
)
async def test_taken_names_are_refused(server, name, reason):
    status, kind, message = told(await load(server, name, server.folder))
    assert (status, kind, reason in message) == (400, "InvalidUserInput", True)


async def test_an_empty_name_is_refused(server):
    assert told(await load(server, "", server.folder))[0] == 400


async def test_unloading_an_unknown_name_is_not_found(server):
    answer = await server.post("/v1/unload_lora_adapter", json={"lora_name": "nobody"})
    assert told(answer)[:2] == (404, "NotFoundError")


async def test_success_is_plain_text(server):
    loaded = await load(server, "more", server.folder)
    unloaded = await server.post("/v1/unload_lora_adapter", json={"lora_name": "more"})
    assert loaded.text == "Success: LoRA adapter 'more' added successfully."
    assert unloaded.text == "Success: LoRA adapter 'more' removed successfully."


async def test_models_are_base_and_adapters_with_root_and_parent(server):
    rows = (await server.get("/v1/models")).json()["data"]
    adapters = [(row["id"], row["root"], row["parent"]) for row in rows[1:]]
    assert (rows[0]["id"], rows[0]["parent"], rows[0]["max_model_len"]) == ("base", None, 1024)
    assert adapters == [("taken", str(server.folder), "base")]


async def rpc(server, method, *args):
    return await server.post("/collective_rpc", json={"method": method, "args": list(args)})


async def test_unloading_leaves_the_weights_and_the_rpc_frees_them(server):
    before = set((await rpc(server, "list_loras")).json()["results"][0])
    await load(server, "short", server.folder)
    await server.post("/v1/unload_lora_adapter", json={"lora_name": "short"})
    (left,) = set((await rpc(server, "list_loras")).json()["results"][0]) - before
    removed = [(await rpc(server, "remove_lora", left)).json()["results"] for _ in range(2)]
    assert removed == [["True"], ["False"]]
    assert left not in (await rpc(server, "list_loras")).json()["results"][0]


async def test_pinning_what_is_unknown_fails_and_the_server_lives(server):
    assert (await rpc(server, "pin_lora", 9999)).status_code == 500
    assert (await server.get("/health")).status_code == 200


async def test_a_stream_ends_with_finish_then_usage_then_done(server):
    answer = await chat(server, stream=True, stream_options={"include_usage": True})
    *events, done = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    *_, finish, usage = [json.loads(event) for event in events]
    assert done == "[DONE]"
    assert finish["choices"][0]["finish_reason"] == "length"
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 3)
