"""What front ends wrap around a message is told from what the user said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.api.openai.transcripts import read
from agentflow.api.openai.wrapping import unwrapped

FILES = '<attached_files>\n<file type="file" name="harbour.txt"/>\n</attached_files>'
PASSAGES = (
    "### Task:\nRespond to the user query using the provided context.\n\n### Guidelines:\n- Be brief.\n\n"
    '<context>\n<source id="1">The harbour has forty-two boats.</source>\n</context>'
)


@pytest.mark.parametrize(
    ("text", "around"),
    [
        (f"{PASSAGES}\n\n{FILES}\n\nHow many boats?", f"{PASSAGES}\n\n{FILES}"),
        (f"{PASSAGES}\n\nHow many boats?", PASSAGES),
        (f"{FILES}\n\nHow many boats?", FILES),
        (f"{PASSAGES}\n\n<user_query>\nHow many boats?\n</user_query>", None),
    ],
)
def test_the_users_own_words_are_found(text, around) -> None:
    found = unwrapped(text)
    assert found.own == "How many boats?"
    assert "How many" not in found.around
    assert around is None or found.around == around


@pytest.mark.parametrize(
    "text",
    [
        "### Task: explain this\nWhat does <context> mean in a template?",
        PASSAGES,
        FILES,
        "My <attached_files>...</attached_files> are gone",
        "<user_query>hello</user_query>",
        "",
    ],
)
def test_what_is_no_wrapping_is_the_users(text) -> None:
    assert unwrapped(text).own == text


@given(st.text(min_size=1).filter(lambda text: text.strip() and "<" not in text and "#" not in text))
def test_nothing_of_a_wrapped_message_is_lost(said) -> None:
    found = unwrapped(f"{PASSAGES}\n\n{FILES}\n\n{said}")
    assert (found.own, found.around) == (said.strip(), f"{PASSAGES}\n\n{FILES}")


def test_the_model_reads_the_wrapping_as_orders_and_the_thread_knows_the_words() -> None:
    wrapped = f"{PASSAGES}\n\n{FILES}\n\nHow many boats?"
    sent = read([{"role": "system", "content": "Be kind."}, {"role": "user", "content": wrapped}])
    assert sent.text == "How many boats?"
    assert sent.system == f"Be kind.\n\n{PASSAGES}\n\n{FILES}"
    later = read(
        [
            {"role": "user", "content": f"{FILES}\n\nHow many boats?"},
            {"role": "assistant", "content": "42"},
            {"role": "user", "content": "And captains?"},
        ]
    )
    assert later.turns() == [("How many boats?", "42")]
