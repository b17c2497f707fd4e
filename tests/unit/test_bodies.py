"""What a request may hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.api.bodies import DEPTH, parsed
from agentflow.errors import BadInput

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)  # fmt: skip


@given(VALUES)
def test_what_can_be_kept_is_read_as_it_was_meant(value) -> None:
    assert parsed(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b"1e999", "infinity"),
        (rb'["\ud800"]', "surrogate"),
        (rb'["a\u0000b"]', "NUL"),
        (rb'{"\u0000": 1}', "NUL"),
        (rb'[[{"a": ["\u0000"]}]]', "NUL"),
        (b"[" * (DEPTH + 1) + b"1" + b"]" * (DEPTH + 1), "nested"),
        (b"[" * 100_000, "not JSON"),
        ('"é"'.encode("latin-1"), "not JSON"),
    ],
)
def test_what_nobody_could_write_down_again_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parsed(body)


def test_words_about_nul_and_a_byte_order_mark_do_no_harm() -> None:
    assert parsed(b"\xef\xbb\xbf[\"print('\\\\u0000')\"]") == ["print('\\u0000')"]
    assert parsed(b"[" * DEPTH + b"1" + b"]" * DEPTH)
