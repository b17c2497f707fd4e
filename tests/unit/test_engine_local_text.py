"""Tokens become text in whole characters, and nothing of a stop string gets out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.engines.local.sampling import Sampler
from agentflow.engines.local.text import Detokeniser, StopWatch


def _decode(tokens):
    """A tokenizer with one token per byte."""
    return bytes(tokens).decode("utf-8", errors="replace")


def _spoken(tokens):
    text = Detokeniser(_decode)
    return [text.feed(token) for token in tokens], text.flush()


@given(st.text())
def test_pieces_join_to_the_text_and_no_piece_holds_half_a_character(text):
    pieces, rest = _spoken(text.encode())
    assert "".join(pieces) + rest == text.rstrip("\N{REPLACEMENT CHARACTER}")
    assert all(piece in text for piece in pieces)


def test_a_character_of_four_bytes_comes_whole():
    assert _spoken("a🙂b".encode()) == (["a", "", "", "", "🙂", "b"], "")


def test_a_character_cut_off_by_the_limit_is_left_out():
    assert _spoken("é🙂".encode()[:-1]) == (["", "é", "", "", ""], "")


def _let_through(stops, pieces):
    watch = StopWatch(stops)
    said = [watch.feed(piece) for piece in pieces]
    return said, watch.hit


def test_what_may_become_a_stop_string_is_held_back():
    assert _let_through(["END"], ["so E", "N", "ds EN", "D more"]) == (["so ", "", "ENds ", ""], True)


def test_the_earliest_stop_string_counts():
    assert _let_through(["cd", "b"], ["abcd"]) == (["a"], True)


def test_without_stop_strings_everything_passes_at_once():
    assert _let_through(["", ""], ["a", "b"]) == (["a", "b"], False)


@given(st.lists(st.text("ab", max_size=3)), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_text_passes_up_to_the_first_stop_string_however_it_is_cut(pieces, stops):
    watch, said = StopWatch(stops), ""
    for piece in pieces:
        said += "" if watch.hit else watch.feed(piece)
    said += "" if watch.hit else watch.flush()
    whole = "".join(pieces)
    assert not any(stop in said for stop in stops)
    assert whole.startswith(said)
    assert watch.hit or said == whole


LOGITS = np.log(np.array([0.1, 0.6, 0.3], np.float32))


def _counts(**options):
    sampler = Sampler(**({"temperature": 1.0, "top_p": 1.0, "seed": 0} | options))
    draws = [sampler.draw(LOGITS) for _ in range(2000)]
    return [draws.count(token) / 2000 for token in range(3)]


def test_tokens_are_drawn_as_often_as_they_are_likely():
    assert _counts() == pytest.approx([0.1, 0.6, 0.3], abs=0.03)


def test_a_low_temperature_prefers_the_likeliest():
    assert _counts(temperature=0.05) == [0.0, 1.0, 0.0]


def test_a_nucleus_leaves_out_the_unlikely():
    assert _counts(top_p=0.85) == pytest.approx([0.0, 2 / 3, 1 / 3], abs=0.03)


def test_the_same_seed_draws_the_same():
    one, two = (Sampler(temperature=1, top_p=1, seed=3) for _ in range(2))
    assert [one.draw(LOGITS) for _ in range(20)] == [two.draw(LOGITS) for _ in range(20)]


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20),
    st.floats(1e-3, 10),
    st.floats(0.0, 1.0, exclude_min=True),
)
def test_a_draw_is_always_a_token(logits, temperature, top_p):
    drawn = Sampler(temperature=temperature, top_p=top_p, seed=1).draw(np.array(logits, np.float32))
    assert 0 <= drawn < len(logits)
