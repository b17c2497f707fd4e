"""The real OpenAI SDK against a served agentflow: chat, streams, tools, responses, embeddings, threads."""

import base64
import json
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest

LOOK = {
    "type": "object",
    "properties": {"place": {"type": "string"}},
    "required": ["place"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look", "description": "Look there.", "parameters": LOOK}}
FLAT = {"type": "function", "name": "look", "description": "Look there.", "parameters": LOOK, "strict": False}


@pytest.fixture(scope="module")
def client(standing) -> Iterator[httpx.Client]:
    with standing.start() as made:
        yield made


@pytest.fixture(scope="module")
def sdk(client) -> Iterator[openai.OpenAI]:
    plain = httpx.Client(trust_env=False)
    with openai.OpenAI(
        base_url=f"{client.base_url}/v1", api_key="none", http_client=plain, max_retries=0
    ) as made:
        yield made


@pytest.fixture(scope="module")
def forgetful(sdk) -> openai.OpenAI:
    """A client for whom nothing is recalled, so that answers are known to the letter."""
    return sdk.with_options(default_headers={"X-Agentflow-Memory": "off"})


def chat(sdk, *messages, model="agentflow/coder", **options):
    turns = [
        {"role": "user" if place % 2 == 0 else "assistant", "content": one}
        for place, one in enumerate(messages)
    ]
    return sdk.chat.completions.create(model=model, messages=turns, **options)


def text_of(answer) -> str:
    return answer.choices[0].message.content


# --- models and embeddings


def test_models_are_agentflow_its_roles_and_the_bare_base(sdk) -> None:
    names = [one.id for one in sdk.models.list()]
    assert names == ["agentflow", "agentflow/philosopher", "agentflow/coder", "agentflow/base", "tiny"]
    assert sdk.models.retrieve("agentflow/coder").owned_by == "agentflow"


def test_an_unknown_model_is_an_error_its_clients_know(sdk) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        chat(sdk, "hi", model="gpt-4o")
    assert (error.value.code, error.value.param, error.value.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert "There is no model 'gpt-4o'. Models: agentflow, agentflow/philosopher" in error.value.message


def test_embeddings_are_the_same_as_floats_and_packed(client) -> None:
    asked = {"model": "text-embedding-3-small", "input": ["a cat", "a dog"]}
    plain = client.post("/v1/embeddings", json=asked).json()
    packed = client.post("/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()
    floats = np.array([one["embedding"] for one in plain["data"]], np.float32)
    unpacked = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in packed["data"]]
    assert np.array_equal(floats, np.array(unpacked))
    assert np.allclose(np.linalg.norm(floats, axis=1), 1, atol=1e-5)
    assert plain["model"] == "text-embedding-3-small"
    assert plain["usage"]["prompt_tokens"] > 0


def test_fewer_dimensions_are_a_vector_of_length_one(sdk) -> None:
    vector = sdk.embeddings.create(model="any", input="a cat", dimensions=8).data[0].embedding
    assert len(vector) == 8
    assert np.isclose(np.linalg.norm(vector), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": "a", "dimensions": 100_000}, "dimensions is 100000; the embedder has"),
        ({"input": [1, 2, 3]}, "send text"),
        ({"input": []}, "0 texts; 1 to 2048"),
        ({"input": [""]}, "an empty text"),
    ],
)
def test_what_cannot_be_embedded_is_refused(client, body, said) -> None:
    answer = client.post("/v1/embeddings", json={"model": "x", **body})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


# --- chat completions


def test_a_chat_completion_says_who_answered(sdk) -> None:
    raw = sdk.chat.completions.with_raw_response.create(
        model="agentflow/coder", messages=[{"role": "user", "content": "hello"}]
    )
    answer = raw.parse()
    assert text_of(answer).startswith("[coder] You said: hello")
    assert (answer.object, answer.model, answer.choices[0].finish_reason) == (
        "chat.completion",
        "agentflow/coder",
        "stop",
    )
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert raw.headers["x-agentflow-role"] == "coder"
    assert raw.headers["x-agentflow-adapter"].startswith("coder@")
    assert raw.headers["x-agentflow-kind"] == "turn"
    assert answer.id == "chatcmpl-" + raw.headers["x-agentflow-run"].replace("-", "")


def test_agentflow_alone_routes_by_meaning(sdk) -> None:
    assert text_of(chat(sdk, "write python code with two functions", model="agentflow")).startswith("[coder]")


def test_a_stream_is_the_answer_in_chunks_with_usage(sdk) -> None:
    chunks = list(chat(sdk, "hello there", stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    words = [one.choices[0].delta.content or "" for one in chunks if one.choices]
    assert "".join(words).startswith("[coder] You said: hello there")
    assert len(words) > 4
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0


def test_a_stream_without_the_wish_has_no_usage_and_ends_with_done(client) -> None:
    body = {"model": "agentflow/coder", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    lines = client.post("/v1/chat/completions", json=body).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    assert "usage" not in lines[-2]


def test_the_clients_wishes_are_heard(sdk) -> None:
    assert chat(sdk, "one two three four", max_tokens=3).choices[0].finish_reason == "length"
    assert text_of(chat(sdk, "one two three", stop=["two"])).endswith("one ")
    assert (
        chat(sdk, "hi", max_tokens=32000, extra_body={"foo": 1, "store": True}).choices[0].finish_reason
        == "stop"
    )


def test_the_systems_prompt_is_read_and_never_remembered(client, sdk) -> None:
    messages = [
        {"role": "system", "content": "Zebra stripes are secret."},
        {"role": "user", "content": [{"type": "text", "text": "What about zebra stripes?"}]},
    ]
    answer = sdk.chat.completions.create(model="agentflow/coder", messages=messages)
    assert text_of(answer).startswith("[coder] You said: What about zebra stripes?")
    told = client.post("/invoke", json={"input": "zebra stripes secret", "role": "coder"}).json()
    assert "Zebra stripes are secret." not in [one["content"] for one in told["memories"]]


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "no message of a user"),
        ({"messages": [{"role": "pirate", "content": "x"}]}, "messages.0.role", "roles are system"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0", "agentflow reads text"),
        ({"messages": [{"role": "user", "content": "a\x00b"}]}, "body", "NUL"),
        ({"messages": [{"role": "user", "content": "a" * 300_000}]}, "messages", "300000 characters"),
        ({"n": 2}, "n", "one answer"),
        ({"logprobs": True}, "logprobs", "not told"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"tools": [{"type": "web_search"}]}, "tools", "functions are passed on"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_openais_shape(client, changes, param, said) -> None:
    body = {"model": "agentflow", "messages": [{"role": "user", "content": "hi"}], **changes}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code in (400, 413)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert said in error["message"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"a":' * 5000, b"\xff", b'"text"'])
def test_a_malformed_body_is_a_400(client, content) -> None:
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/embeddings"):
        answer = client.post(path, content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400, path
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_of_a_hundred_megabytes_is_refused(client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 2**20

    answer = client.post(
        "/v1/chat/completions", content=pieces(), headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


# --- tools and structure


def test_a_tool_round_trip(forgetful) -> None:
    asked = [{"role": "user", "content": "call the tool"}]
    first = forgetful.chat.completions.create(model="agentflow/coder", messages=asked, tools=[TOOL])
    call = first.choices[0].message.tool_calls[0]
    assert (first.choices[0].finish_reason, call.function.name) == ("tool_calls", "look")
    assert json.loads(call.function.arguments) == {"place": "call the tool"}
    extra = '{"place": "x", "tool": "look", "id": "y"}'
    echoed = {"id": call.id, "type": "function", "function": {"name": "look", "arguments": extra}}
    told = [
        *asked,
        {"role": "assistant", "content": [], "tool_calls": [echoed]},
        {"role": "tool", "content": "rain", "tool_call_id": call.id},
    ]
    last = forgetful.chat.completions.create(model="agentflow/coder", messages=told, tools=[TOOL])
    assert text_of(last) == "[coder] You said: call the tool The tool said: rain"


def test_tool_calls_stream_as_deltas(forgetful) -> None:
    chunks = list(chat(forgetful, "call the tool", stream=True, tools=[TOOL]))
    deltas = [one for chunk in chunks for one in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].function.name == "look"
    assert json.loads("".join(one.function.arguments for one in deltas)) == {"place": "call the tool"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_older_form_of_tools_makes_a_round_trip(forgetful) -> None:
    asked, functions = [{"role": "user", "content": "call the tool"}], [TOOL["function"]]
    first = forgetful.chat.completions.create(model="agentflow/coder", messages=asked, functions=functions)
    call = first.choices[0].message.function_call
    assert (first.choices[0].finish_reason, call.name) == ("function_call", "look")
    assert first.choices[0].message.tool_calls is None
    told = [
        *asked,
        {"role": "assistant", "content": None, "function_call": call.model_dump()},
        {"role": "function", "name": "look", "content": "rain"},
    ]
    last = forgetful.chat.completions.create(model="agentflow/coder", messages=told, functions=functions)
    assert text_of(last) == "[coder] You said: call the tool The tool said: rain"


def test_a_function_call_streams(forgetful) -> None:
    chunks = list(chat(forgetful, "call the tool", stream=True, functions=[TOOL["function"]]))
    grown = [one.choices[0].delta.function_call for one in chunks if one.choices[0].delta.function_call]
    assert json.loads("".join(one.arguments or "" for one in grown)) == {"place": "call the tool"}
    assert chunks[-1].choices[0].finish_reason == "function_call"


def test_a_structured_answer_holds_to_its_schema(forgetful) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": LOOK, "strict": True}}
    assert set(json.loads(text_of(chat(forgetful, "where?", response_format=shape)))) == {"place"}


# --- responses


def test_a_response(forgetful) -> None:
    answer = forgetful.responses.create(model="agentflow/coder", input="hello")
    assert answer.output_text == "[coder] You said: hello"
    assert (answer.status, answer.usage.total_tokens > 0) == ("completed", True)


def test_a_response_goes_on_after_another(sdk) -> None:
    first = sdk.responses.create(model="agentflow/coder", input="My cat is called Tom")
    raw = sdk.responses.with_raw_response.create(
        model="agentflow/coder", input="and now?", previous_response_id=first.id, instructions="Be terse."
    )
    run = sdk.responses.with_raw_response.create(
        model="agentflow/coder", input="last", previous_response_id=raw.parse().id
    )
    assert raw.headers["x-agentflow-thread"] == run.headers["x-agentflow-thread"]


def test_a_response_streams_its_events(forgetful) -> None:
    events = list(forgetful.responses.create(model="agentflow/coder", input="hello there", stream=True))
    assert [one.sequence_number for one in events] == list(range(len(events)))
    kinds = [one.type for one in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    said = "".join(one.delta for one in events if one.type == "response.output_text.delta")
    assert said == events[-1].response.output_text == "[coder] You said: hello there"


def test_a_response_with_tools_as_builders_send_it(forgetful) -> None:
    asked = [
        {"type": "message", "role": "system", "content": "You are terse."},
        {"type": "message", "role": "user", "content": "call the tool"},
    ]
    first = forgetful.responses.create(model="agentflow/coder", input=asked, tools=[FLAT], text={})
    call = first.output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "look",
        {"place": "call the tool"},
    )
    results = [
        {"type": "function_call", "name": "look", "arguments": call.arguments, "call_id": call.call_id},
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    last = forgetful.responses.create(model="agentflow/coder", input=[*asked, *results], tools=[FLAT])
    assert last.output_text == "[coder] You said: call the tool The tool said: rain"
    short = forgetful.responses.create(
        model="agentflow/coder", input=results[1:], previous_response_id=first.id, tools=[FLAT]
    )
    assert short.output_text == "[coder] You said: call the tool The tool said: rain"


def test_a_streamed_call_builds_up(forgetful) -> None:
    events = list(
        forgetful.responses.create(model="agentflow/coder", input="call the tool", tools=[FLAT], stream=True)
    )
    whole = events[-1].response.output[0]
    grown = "".join(one.delta for one in events if one.type == "response.function_call_arguments.delta")
    assert (whole.type, whole.arguments) == ("function_call", grown)


def test_a_response_is_shown_again_with_what_it_answered(sdk) -> None:
    given = sdk.responses.create(model="agentflow/coder", input="Snails are slow")
    again = sdk.responses.retrieve(given.id)
    assert (again.id, again.output, again.usage, again.status) == (
        given.id,
        given.output,
        given.usage,
        "completed",
    )
    assert again.model == "agentflow/coder"
    item = sdk.responses.input_items.list(given.id).data[0]
    assert (item.role, item.content[0].text) == ("user", "Snails are slow")


def test_a_response_with_a_call_is_shown_again(sdk) -> None:
    given = sdk.responses.create(model="agentflow/coder", input="call the tool", tools=[FLAT])
    assert sdk.responses.retrieve(given.id).output == given.output


def test_a_deleted_response_is_gone_with_what_was_remembered(client, sdk) -> None:
    given = sdk.responses.create(model="agentflow/coder", input="My newt is called Egon")
    sdk.responses.delete(given.id)
    assert remembered(client, "newt") == []
    with pytest.raises(openai.NotFoundError, match="There is no response"):
        sdk.responses.retrieve(given.id)


def test_a_deleted_response_within_a_thread_loses_its_words_alone(client, sdk) -> None:
    first = sdk.responses.create(model="agentflow/coder", input="Rolf is a toad")
    last = sdk.responses.create(
        model="agentflow/coder", input="The toad is green", previous_response_id=first.id
    )
    sdk.responses.delete(last.id)
    assert remembered(client, "toad") == ["Rolf is a toad"]
    assert sdk.responses.retrieve(first.id).status == "completed"


def test_another_response_is_not_there(sdk) -> None:
    with pytest.raises(openai.NotFoundError, match="There is no response"):
        sdk.responses.create(
            model="agentflow", input="hi", previous_response_id="resp_00000000000070008000000000000001"
        )
    with pytest.raises(openai.BadRequestError, match="no response of ours"):
        sdk.responses.create(model="agentflow", input="hi", previous_response_id="resp_1; drop table run")


# --- threads of stateless clients


def place(sdk, *messages, **headers) -> tuple[str, str]:
    turns = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": one} for n, one in enumerate(messages)
    ]
    raw = sdk.chat.completions.with_raw_response.create(
        model="agentflow/coder",
        messages=turns,
        extra_headers={name.replace("_", "-"): one for name, one in headers.items()},
    )
    return raw.headers["x-agentflow-thread"], text_of(raw.parse())


def test_a_transcript_finds_its_thread_and_an_edit_branches(sdk) -> None:
    thread, first = place(sdk, "elephants are grey")
    again, second = place(sdk, "elephants are grey", first, "are they big?")
    assert again == thread
    edited, _ = place(sdk, "elephants are grey", first, "are they small?")
    assert edited != thread
    regenerated, _ = place(sdk, "elephants are grey", first, "are they big?", second, "thanks")
    assert regenerated == thread


def test_a_chat_id_is_one_thread_and_its_edits_are_branches(sdk) -> None:
    chat_id = {"X_Some_Chat_Id": "c-1"}
    thread, first = place(sdk, "giraffes are tall", **chat_id)
    again, _ = place(sdk, "giraffes are tall", first, "how tall?", **chat_id)
    assert again == thread
    regenerated, third = place(sdk, "giraffes are tall", first, "how tall?", **chat_id)
    assert regenerated != thread
    on, _ = place(sdk, "giraffes are tall", first, "how tall?", third, "and wide?", **chat_id)
    assert on == regenerated
    other, _ = place(sdk, "giraffes are tall", X_Some_Chat_Id="c-2")
    assert other not in (thread, regenerated)


def test_turns_made_elsewhere_are_taken_over(client, sdk) -> None:
    thread, _ = place(sdk, "a", "b", "c", "d", "e", X_Some_Chat_Id="elsewhere")
    again, _ = place(sdk, "c", "d", "e", "wrong answer", "f", X_Some_Chat_Id="elsewhere")
    assert again != thread


def test_a_thread_may_be_named_in_the_metadata(sdk) -> None:
    name = "00000000-0000-7000-8000-0000000000aa"
    raw = sdk.chat.completions.with_raw_response.create(
        model="agentflow/coder", messages=[{"role": "user", "content": "hi"}], metadata={"thread_id": name}
    )
    assert raw.headers["x-agentflow-thread"] == name


def test_a_builder_that_names_no_thread_is_stateless(client) -> None:
    whose = {"x-agentflow-user": "builder"}
    agent = {**whose, "user-agent": "langchainjs-openai/1.0.0 ((node/v24.21.0; linux; x64))"}
    body = {
        "model": "agentflow/coder",
        "messages": [{"role": "user", "content": "My parrot is called Polly"}],
    }
    question = {"input": "How is my parrot called?", "role": "coder"}
    client.post("/v1/chat/completions", json=body, headers=agent)
    assert client.post("/invoke", json=question, headers=whose).json()["memories"] == []
    client.post("/v1/chat/completions", json=body, headers={**agent, "x-thread-id": "n8n-1"})
    told = client.post("/invoke", json=question, headers=whose).json()
    assert "My parrot is called Polly" in [one["content"] for one in told["memories"]]


def test_a_user_is_kept_apart_where_the_key_may_speak_for_users(sdk) -> None:
    chat(sdk, "My horse is called Bella", user="alice")
    assert "Bella" in text_of(chat(sdk, "How is my horse called?", user="alice"))
    assert "Bella" not in text_of(chat(sdk, "How is my horse called?", user="bob"))


def test_users_of_a_front_end_are_kept_apart_by_its_header(sdk) -> None:
    ada, bob = ({"X-Front-User-Id": name} for name in ("ada", "bob"))
    chat(sdk, "My canary is called Pip", extra_headers=ada)
    assert "Pip" in text_of(chat(sdk, "How is my canary called?", extra_headers=ada))
    assert "Pip" not in text_of(chat(sdk, "How is my canary called?", extra_headers=bob))


def test_the_header_of_ours_names_the_user_at_every_door(client, sdk) -> None:
    chat(sdk, "Geckos climb walls", extra_headers={"X-Agentflow-User": "gil", "X-Front-User-Id": "other"})
    told = client.get("/memory", headers={"X-Agentflow-User": "gil"}).json()["memories"]
    assert "Geckos climb walls" in [one["content"] for one in told]
    assert "Geckos climb walls" not in [one["content"] for one in client.get("/memory").json()["memories"]]


def remembered(client, *words: str) -> list[str]:
    found = client.get("/memory", params={"limit": 200}).json()["memories"]
    said = [one["content"] for one in found if not one["hidden"] and not one["content"].startswith("[")]
    return [one for one in said if all(word in one for word in words)]


def test_what_an_edit_has_replaced_is_not_recalled(client, sdk) -> None:
    chat_id = {"X_Some_Chat_Id": "c-edited"}
    _, first = place(sdk, "Hamsters are rodents", **chat_id)
    place(sdk, "Hamsters are rodents", first, "My hamster is called Otto", **chat_id)
    place(sdk, "Hamsters are rodents", first, "My hamster is called Emil", **chat_id)
    assert remembered(client, "hamster") == ["My hamster is called Emil"]


def test_a_regenerated_answers_question_is_remembered_once_without_a_chat_id(client, sdk) -> None:
    _, first = place(sdk, "Ferrets are weasels")
    place(sdk, "Ferrets are weasels", first, "My ferret is called Ida")
    place(sdk, "Ferrets are weasels", first, "My ferret is called Ida")
    assert remembered(client, "ferret") == ["My ferret is called Ida"]


def test_another_chat_with_the_same_beginning_takes_nothing_from_the_first(client, sdk) -> None:
    _, first = place(sdk, "Otters are playful")
    place(sdk, "Otters are playful", first, "My otter is called Uwe")
    place(sdk, "Otters are playful", first, "My sister likes otters")
    assert remembered(client, "otter is called Uwe") == ["My otter is called Uwe"]


def test_documents_of_a_front_end_are_read_and_not_remembered(client, sdk) -> None:
    passages = (
        "### Task:\nRespond to the user query using the provided context.\n"
        '<context>\n<source id="1">The lighthouse has nine lamps.</source>\n</context>\n\n'
    )
    thread, answer = place(sdk, f"{passages}How many lamps burn?", X_Some_Chat_Id="c-lamps")
    assert answer.startswith("[coder] You said: How many lamps burn?")
    again, _ = place(sdk, "How many lamps burn?", answer, "And by day?", X_Some_Chat_Id="c-lamps")
    assert again == thread
    assert remembered(client, "lamps") == ["How many lamps burn?"]


@pytest.mark.parametrize("order", ["[Continue your last message.]", "[Write the next reply as the user.]"])
def test_more_of_an_answer_is_no_turn_of_the_chat(client, sdk, order) -> None:
    _, answer = place(sdk, f"Beavers build dams {order}")
    before = remembered(client, "Beavers")
    messages = [
        {"role": "user", "content": f"Beavers build dams {order}"},
        {"role": "assistant", "content": answer},
        {"role": "system", "content": order},
    ]
    sdk.chat.completions.create(model="agentflow/coder", messages=messages)
    assert remembered(client, "Beavers") == before


def test_the_same_key_is_the_same_answer(client) -> None:
    body = {
        "model": "agentflow/coder",
        "messages": [{"role": "user", "content": "once"}],
        "metadata": {"thread_id": "k"},
    }
    first, again = (
        client.post("/v1/chat/completions", json=body, headers={"Idempotency-Key": "one"}) for _ in range(2)
    )
    assert first.headers["x-agentflow-run"] == again.headers["x-agentflow-run"]
    assert first.json()["choices"] == again.json()["choices"]
    other = {**body, "messages": [{"role": "user", "content": "twice"}]}
    refused = client.post("/v1/chat/completions", json=other, headers={"Idempotency-Key": "one"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")


def test_a_front_ends_own_call_is_answered_by_the_base_and_leaves_nothing(client) -> None:
    task = (
        "### Task:\nGenerate a concise title for the chat.\n### Output:\nJSON format\n"
        "### Chat History:\n<chat_history>\nUSER: My fish is called Wanda\nASSISTANT: Nice.\n</chat_history>"
    )
    body = {"model": "agentflow/coder", "messages": [{"role": "user", "content": task}]}
    answer = client.post("/v1/chat/completions", json=body, headers={"x-some-chat-id": "c-9"})
    assert (answer.headers["x-agentflow-kind"], answer.headers["x-agentflow-role"]) == ("utility", "base")
    assert "x-agentflow-run" not in answer.headers
    told = client.post("/invoke", json={"input": "How is my fish called?", "role": "coder"}).json()
    assert not any("Wanda" in one["content"] for one in told["memories"])


def test_a_title_asked_for_by_a_tool_that_must_be_called_is_a_front_ends_call(client) -> None:
    task = "Analyze this conversation and give its language and a title in 5 words or less.\n\nUser: hi\nAI: hello"
    body = {"model": "agentflow/coder", "messages": [{"role": "user", "content": task}], "tools": [TOOL]}
    forced = {**body, "tool_choice": {"type": "function", "function": {"name": "look"}}}
    kinds = [
        client.post("/v1/chat/completions", json=one).headers["x-agentflow-kind"] for one in (body, forced)
    ]
    assert kinds == ["turn", "utility"]


def test_the_bare_base_has_no_memory_and_no_thread(client) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.headers["x-agentflow-kind"] == "bare"
    assert answer.json()["choices"][0]["message"]["content"] == "[base] You said: hello"
