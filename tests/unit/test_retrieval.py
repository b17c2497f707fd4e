"""BM25 and fusion: what the formulas promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.retrieval.bm25 import contributions, counts, idf
from agentflow.retrieval.fusion import Pool, Related, Weights, ranked
from agentflow.retrieval.terms import bag, term, words

TEXTS = ("the red dog", "a dog and a dog", "quiet", "")


def found_in(texts: tuple[str, ...], *asked: str) -> np.ndarray:
    bags = [bag(text, "english").packed() for text in texts]
    return counts(b"".join(bags), np.array([len(one) for one in bags]), [term(one) for one in asked])


def pool(cosines: list[float], **changes: object) -> Pool:
    """Rows in one session, ten places apart, without words."""
    rows = len(cosines)
    plain = {
        "ids": np.arange(rows),
        "sessions": np.ones(rows, np.int64),
        "positions": np.arange(rows) * 10,
        "cosines": np.array(cosines),
        "questions": np.zeros(rows, bool),
        "lengths": np.ones(rows, np.int64),
        "found": np.zeros((rows, 1)),
        "weights": np.ones(1),
        "mean_length": 1.0,
        "owed": 1.0,
    }
    return Pool(**{**plain, **changes})


def order(candidates: Pool) -> list[int]:
    return [one.row for one in ranked(candidates, 99)]


def test_terms_are_counted_per_text() -> None:
    assert found_in(TEXTS, "dog", "red", "cat").tolist() == [[1, 1, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert found_in(TEXTS).shape == (4, 0)


def test_a_rare_term_weighs_more_and_none_weighs_less_than_nothing() -> None:
    weights = idf(10, np.array([0, 1, 5, 10]))
    assert weights.tolist() == sorted(weights, reverse=True)
    assert weights[-1] > 0
    assert weights[1] == pytest.approx(math.log(1 + 9.5 / 1.5))


def test_bm25_saturates_and_prefers_short_texts() -> None:
    scores = contributions(np.array([[1.0], [2.0], [99.0], [1.0]]), np.array([4, 4, 4, 9]), np.ones(1), 4.0)[
        :, 0
    ]
    assert scores[3] < scores[0] == 1.0 < scores[1] < scores[2] < 1.9


def test_words_and_meaning_decide_together() -> None:
    both = pool([0.9, 0.9, 0.1], found=np.array([[0.0], [1.0], [1.0]]))
    assert order(both) == [1, 0, 2]


def test_a_question_comes_after_an_answer_that_is_as_good() -> None:
    assert order(pool([0.5, 0.5], questions=np.array([True, False]))) == [1, 0]


def test_a_neighbour_of_the_best_gains_from_it() -> None:
    assert order(pool([0.9, 0.1, 0.1], positions=np.array([10, 20, 11]))) == [0, 2, 1]


def test_an_answer_gains_most_from_its_question() -> None:
    rows = pool(
        [0.9, 0.9, 0.1, 0.1], positions=np.array([10, 20, 21, 11]), questions=np.array([True, False] * 2)
    )
    gained = {one.row: one.parts["neighbours"] for one in ranked(rows, 9, Weights(question=0, session=0))}
    assert gained == {0: -0.26, 1: -0.26, 2: 0.26, 3: 0.585}


def test_words_near_in_meaning_count_less_and_once_per_word() -> None:
    near = Related(
        found=np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        weights=np.ones(3),
        nearness=np.array([0.5, 1.0, 0.5]),
        origins=np.array([0, 0, 1]),
    )
    found = ranked(pool([float("nan")] * 2, related=near), 2)
    assert [(one.row, one.parts["related"]) for one in found] == [(0, 0.5), (1, 0.25)]


def test_a_session_gains_from_its_best() -> None:
    assert order(pool([0.9, 0.1, 0.1], sessions=np.array([1, 2, 1]))) == [0, 2, 1]


def test_texts_without_a_vector_stand_in_the_middle() -> None:
    assert order(pool([0.9, float("nan"), 0.1])) == [0, 1, 2]
    assert order(pool([float("nan")] * 2, found=np.array([[0.0], [1.0]]))) == [1, 0]


def test_relevance_is_the_cosine_and_half_the_share_of_words() -> None:
    one = ranked(pool([0.4], found=np.ones((1, 1)), owed=2.0), 1)[0]
    assert (one.relevance, one.parts["cosine"], one.parts["matched"]) == (0.65, 0.4, [0])


def test_without_vectors_relevance_is_the_share_of_words() -> None:
    assert ranked(pool([float("nan")], found=np.ones((1, 1)), owed=2.0), 1)[0].relevance == 0.7


def test_relevance_looks_at_the_neighbours() -> None:
    rows = {
        one.row: one.relevance for one in ranked(pool([0.9, 0.1, 0.1], positions=np.array([10, 12, 13])), 9)
    }
    assert rows == {0: 0.9, 1: 0.9, 2: 0.1}


def test_nothing_is_ranked_out_of_nothing() -> None:
    assert ranked(pool([]), 5) == []
    assert ranked(pool([0.5]), 0) == []


NUMBERS = st.one_of(st.floats(-1, 1), st.just(float("nan")))


@given(
    st.lists(st.tuples(NUMBERS, st.integers(0, 3), st.integers(0, 9), st.booleans()), min_size=1, max_size=12)
)
def test_every_row_has_one_place_and_its_parts_add_up(rows: list[tuple[float, int, int, bool]]) -> None:
    cosines, sessions, positions, questions = (np.array(column) for column in zip(*rows, strict=True))
    candidates = pool(list(cosines), sessions=sessions, positions=positions, questions=questions)
    found = ranked(candidates, 99, Weights())
    fused = [one.parts["fused"] for one in found]
    assert sorted(one.row for one in found) == list(range(len(rows)))
    assert fused == sorted(fused, reverse=True)
    assert all(np.isfinite(one.relevance) for one in found)


def test_a_picture_is_a_word() -> None:
    assert words("Zwei 🍕🍕, bitte! 👍🏽") == ["zwei", "🍕", "🍕", "bitte", "👍"]
