"""What clients send as one transcript."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.api.openai.transcripts import from_items, read, words
from agentflow.errors import BadInput

CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def said(role: str, content: object, **more: object) -> dict:
    return {"role": role, "content": content, **more}


def test_the_last_message_of_the_user_is_the_one_to_answer() -> None:
    sent = read(
        [
            said("system", "s"),
            said("user", "a"),
            said("assistant", "b"),
            said("user", "c"),
            said("developer", "d"),
        ]
    )
    assert (sent.system, sent.text, sent.after) == ("s\n\nd", "c", [])
    assert sent.turns() == [("a", "b")]


def test_tools_stand_beside_the_conversation() -> None:
    called, told = said("assistant", [], tool_calls=[CALL]), said("tool", "rain", tool_call_id="c")
    sent = read([said("user", "a"), called, told, said("assistant", "wet"), said("user", "b"), called, told])
    assert sent.turns() == [("a", "wet")]
    assert [one["role"] for one in sent.before] == ["user", "assistant", "tool", "assistant"]
    assert [one["role"] for one in sent.after] == ["assistant", "tool"]


def test_answers_in_a_row_are_one_and_a_message_without_an_answer_is_no_turn() -> None:
    sent = read(
        [
            said("user", "a"),
            said("user", "b"),
            said("assistant", "c"),
            said("assistant", "d"),
            said("user", "e"),
        ]
    )
    assert sent.turns() == [("b", "c\n\nd")]
    assert read([said("user", "failed"), said("user", "again")]).turns() == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hi", "hi"), (None, ""), ([], ""), (["a", "b"], "a\nb"),
        ([{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, {"text": "c"}], "a\nb\nc"),
        ([{"type": "refusal", "refusal": "no"}], "no"), ({"a": 1}, '{"a": 1}'), ([{"type": "text", "text": None}], ""),
    ],
)  # fmt: skip
def test_content_of_every_form_is_text(content, text) -> None:
    assert words(content, "messages.0") == text


@pytest.mark.parametrize("content", [[{"type": "image_url"}], [{"type": "input_audio"}], [5], [[]]])
def test_pictures_and_sound_are_refused(content) -> None:
    with pytest.raises(BadInput, match=r"messages.0 holds a part of type"):
        words(content, "messages.0")


def test_items_of_a_response_are_messages() -> None:
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "1"},
        {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "2"},
        {"type": "function_call_output", "call_id": "1", "output": "rain"},
    ]
    sent = read(from_items(items, "Be terse."))
    assert (sent.system, sent.text) == ("Be terse.", "a")
    assert [one["id"] for one in sent.after[0]["tool_calls"]] == ["1", "2"]
    assert sent.after[1] == {"role": "tool", "content": "rain", "tool_call_id": "1"}
    assert read(from_items("hi", None)).text == "hi"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda one: st.lists(one, max_size=3)
)
PARTS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", None, 5])},
    optional=dict.fromkeys(("content", "type", "text", "tool_calls", "call_id", "output"), JSON),
)


@given(st.lists(PARTS, max_size=4))
def test_whatever_is_sent_is_read_or_refused(messages) -> None:
    for reader in (lambda: read(messages), lambda: read(from_items(messages, None))):
        with contextlib.suppress(BadInput):
            assert isinstance(reader().text, str)


@pytest.mark.parametrize(
    ("last", "answered"),
    [
        ([], False),
        ([said("assistant", "b")], True),
        ([said("assistant", "b"), said("system", "[Continue your last message.]")], True),
        ([{"role": "assistant", "content": None, "tool_calls": []}], True),
    ],
)
def test_a_message_that_has_its_answer_is_told_from_one_that_waits(last, answered) -> None:
    assert read([said("user", "a"), *last]).answered is answered
