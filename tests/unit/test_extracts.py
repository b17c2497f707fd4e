"""Single values out of a thread."""

import pytest

from agentflow.api.protocol.extracts import extracted
from agentflow.api.protocol.wire import selected
from agentflow.errors import BadInput

THREAD = {"thread_id": "t", "values": {"messages": [{"content": "a"}, {"content": "b"}], "topic": "talk"}}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("thread_id", "t"),
        ("values.topic", "talk"),
        ("values.messages[0].content", "a"),
        ("values.messages[-1].content", "b"),
        ("values.messages[2].content", None),
        ("values.topic[0]", None),
        ("values.topic.more", None),
        ("nothing[-1]", None),
    ],
)
def test_a_path_leads_to_a_value_or_to_nothing(path, found) -> None:
    assert extracted(THREAD, {"it": path}) == {"it": found}


def test_ten_paths_are_enough() -> None:
    with pytest.raises(BadInput, match="at most 10"):
        extracted(THREAD, {str(number): "values" for number in range(11)})


def test_one_key_of_the_values_may_be_selected() -> None:
    assert selected([THREAD], ["thread_id", "values.topic", "values.gone"]) == [
        {"thread_id": "t", "values": {"topic": "talk"}}
    ]
    assert selected([THREAD], ["values", "values.topic"]) == [{"values": THREAD["values"]}]
