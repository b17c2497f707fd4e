"""What the model reads."""

import json

from hypothesis import given
from hypothesis import strategies as st

from agentflow.prompt import CAUTION, CLOSE, OPEN, chat_messages, memory_section


def test_without_memories_the_text_stands_alone() -> None:
    assert chat_messages(system="", quotes=[], history=[], text="hi") == [{"role": "user", "content": "hi"}]


def test_memories_are_quoted_before_the_text_and_the_system_says_what_they_are() -> None:
    quotes = [{"speaker": "user", "day": "2026-11-22", "content": 'My dog is "Rex"'}]
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert chat_messages(system="Be brief.", quotes=quotes, history=history, text="Which dog?") == [
        {"role": "system", "content": f"Be brief.\n{CAUTION}"},
        *history,
        {
            "role": "user",
            "content": '<memory>\n- user (2026-11-22): "My dog is \\"Rex\\""\n</memory>\nWhich dog?',
        },
    ]


@given(st.lists(st.text(max_size=80), max_size=4))
def test_no_memory_can_end_the_section_or_begin_a_line(contents: list[str]) -> None:
    section = memory_section([{"speaker": "user", "day": "2026-11-22", "content": one} for one in contents])
    lines = section.split("\n")[1:-2] if contents else []
    assert (section.count(OPEN), section.count(CLOSE)) == ((1, 1) if contents else (0, 0))
    assert [json.loads(line.split(": ", 1)[1]) for line in lines] == contents


@given(st.text(max_size=300))
def test_no_name_or_heading_can_end_the_section_or_begin_a_line(speaker: str) -> None:
    section = memory_section([{"speaker": speaker, "day": "2026-11-22", "content": "x"}])
    assert (section.count(OPEN), section.count(CLOSE), len(section.splitlines())) == (1, 1, 3)
    assert section.endswith(f': "x"\n{CLOSE}\n')
