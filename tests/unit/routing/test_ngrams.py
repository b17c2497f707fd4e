"""Letters of any script as vectors."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agentflow.routing.ngrams import WIDTH, Lexicon
from agentflow.routing.words import folded, is_reply, length
from agentflow.settings.replies import REPLIES

TEXTS = st.lists(st.text(max_size=40), min_size=1, max_size=6)


@given(known=TEXTS, asked=TEXTS)
def test_any_text_has_a_finite_vector_of_bounded_length(known, asked) -> None:
    vectors = Lexicon.of(known).vectors(asked)
    assert vectors.shape == (len(asked), WIDTH)
    assert np.isfinite(vectors).all()


@given(known=TEXTS, asked=TEXTS)
def test_a_text_has_the_same_vector_alone_and_among_others(known, asked) -> None:
    lexicon = Lexicon.of(known)
    together = lexicon.vectors(asked)
    alone = np.concatenate([lexicon.vectors([one]) for one in asked])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_words_of_one_root_are_nearer_than_strangers() -> None:
    lexicon = Lexicon.of(["книга", "книги", "машина", "книжный магазин"])
    book, books, car = lexicon.vectors(["книга", "книги", "машина"])
    assert book @ books > 2 * abs(book @ car)


def test_case_and_width_do_not_matter() -> None:
    lexicon = Lexicon.of(["straße book", "ＡＢＣ"])
    one, two, three, four = lexicon.vectors(["STRASSE Book", "straße BOOK", "ＡＢＣ", "abc"])
    assert one.tobytes() == two.tobytes()
    assert three.tobytes() == four.tobytes()
    assert folded("  Straße\n X ") == "strasse x"


def test_length_counts_words_in_scripts_with_and_without_spaces() -> None:
    counted = {"": 0, "hello": 1, "so, what's up?": 3, "да, продолжай": 2, "画一只猫": 2, "👍": 0}
    assert {text: length(text) for text in counted} == counted


def test_replies_are_recognised_and_requests_are_not() -> None:
    replies = frozenset(REPLIES)
    assert all(is_reply(text, replies) for text in ("Thanks!", "yes please", "да", "и что дальше? нет"[:2]))
    assert not is_reply("yes, paint a cat", replies)
