"""Long texts in pieces, and what is not remembered at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.retrieval.origin import is_chore, spoken
from agentflow.retrieval.pieces import pieces, tokens

TITLE = """### Task:
Generate a concise, 3-5 word title with an emoji summarizing the chat history.
### Chat History:
<chat_history>
USER: My dog is called Rex
ASSISTANT: Nice!
</chat_history>"""


def test_a_short_text_is_one_piece() -> None:
    assert pieces(" My dog is called Rex. ") == ["My dog is called Rex."]
    assert pieces(" \n ") == []


def test_paragraphs_are_cut_before_sentences_and_sentences_before_words() -> None:
    assert pieces("One two. Three.\n\nFour five six seven.", limit=6) == [
        "One two. Three.",
        "Four five six seven.",
    ]
    assert pieces("One two three. Four five six.", limit=5) == ["One two three.", "Four five six."]
    assert pieces("one two three four", limit=3) == ["one two", "three four"]
    assert pieces("abcdefgh" * 2, limit=2) == ["abcdefgh"] * 2


@given(st.text(alphabet="ab. \nя我", max_size=300), st.integers(1, 20))
def test_pieces_keep_every_letter_in_order_and_the_limit(text: str, limit: int) -> None:
    found = pieces(text, limit)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(tokens(piece) <= limit or len(piece) == 1 for piece in found)


@pytest.mark.parametrize(
    ("text", "chore"),
    [
        (TITLE, True),
        ("Create a short title for this conversation:\nUser: hi\nAssistant: hello", True),
        (
            "### Task:\nSuggest 3-5 relevant follow-up questions.\n<chat_history>\nUSER: hi\n</chat_history>",
            True,
        ),
        ("Generate a title for my novel about a dog", False),
        ("Summarize this interview:\nUser: how are you?\nAssistant: fine", False),
        ("### Task: water the plants", False),
        ("What is a title?", False),
    ],
)
def test_requests_that_front_ends_send_on_their_own_are_told_from_people(text: str, chore: bool) -> None:
    assert is_chore(text) is chore


def test_thoughts_are_not_spoken() -> None:
    assert spoken("<think>The dog...</think>\nRex.") == "Rex."
    assert spoken("<think>never closed") == ""
