"""Results as they are stored: small, and the same JSON when they are told again."""

import json

from hypothesis import given
from hypothesis import strategies as st

from agentflow.records.details import emptied, offered, packed, replaced, told, unpacked, without

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=9), inside, max_size=4),
)
WHY = {"bm25": 2.0, "matched": ["tea"]}
MEMORY = {
    "id": 7,
    "collection": "c",
    "speaker": "user",
    "said_at": "2026-01-02T03:04:05+00:00",
    "score": 1.5,
    "content": "I like tea.",
    "why": WHY,
}
ROW = ["c", "user", "2026-01-02T03:04:05+00:00", "I like tea."]
RESULT = {
    "run_id": "r",
    "thread_id": "t",
    "output": "Tea.",
    "selection": {"offered": ["cook"]},
    "memories": [MEMORY],
    "after": [{"role": "tool", "content": "Ann said so"}],
}


@given(st.dictionaries(st.sampled_from(["role", "intent", "timings", "after"]), PLAIN))
def test_a_result_is_told_as_it_was(result: dict[str, object]) -> None:
    details, recalled = packed(result)
    assert (told("r", "t", (details, recalled, None, None)), recalled) == (result, None)


def test_words_come_back_from_their_own_rows_into_their_own_places() -> None:
    again = told("r", "t", (*packed(RESULT), "Tea.", {"7": ROW}))
    assert json.dumps(again) == json.dumps(RESULT)


def test_words_that_have_rows_are_not_stored() -> None:
    assert unpacked(packed(RESULT)[0]) == {
        "run_id": None,
        "thread_id": None,
        "output": None,
        "selection": {"offered": ["cook"]},
        "memories": [{"score": 1.5, "why": WHY}],
        "after": [{"role": "tool", "content": "Ann said so"}],
    }


def test_a_memory_without_a_row_is_left_out() -> None:
    assert (told("r", "t", (*packed(RESULT), "Tea.", None)) or {})["memories"] == []


def test_a_memory_taken_out_takes_its_reasons_along() -> None:
    both = {**RESULT, "memories": [MEMORY, {**MEMORY, "id": 8, "score": 1.0}]}
    details, recalled = packed(both)
    left, ids = without(details, recalled or [], {7})
    assert (ids, unpacked(left)["memories"]) == ([8], [{"score": 1.0, "why": WHY}])


def test_a_text_is_replaced_where_it_is_a_whole_value() -> None:
    details, _ = packed(RESULT)
    assert unpacked(replaced(details, "Ann said so", "(gone)") or b"")["after"][0]["content"] == "(gone)"
    assert replaced(details, "Ann", "(gone)") is None


def test_a_result_that_holds_a_text_loses_memories_and_tool_calls() -> None:
    left = unpacked(emptied(packed(RESULT)[0], "ann said"))
    assert (left["memories"], "after" in left) == ([], False)
    assert emptied(packed(RESULT)[0], "Bob") is None


def test_roles_that_were_offered_are_known() -> None:
    assert (offered(packed(RESULT)[0]), offered(None), offered(packed({"selection": None})[0])) == (
        ["cook"],
        [],
        [],
    )


def test_what_is_written_once_is_read_for_ever() -> None:
    stored = bytes.fromhex("018307677a29306528a1270a0241080ea95a00")
    assert unpacked(stored) == {"role": "guide", "selection": {"reason": "classified"}, "memory": "full"}
