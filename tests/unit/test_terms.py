"""Texts to terms, in every script."""

import unicodedata
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.retrieval.stopwords import MONTHS, STOP_WORDS
from agentflow.retrieval.terms import (
    ENTRY,
    asks,
    bag,
    embedded_text,
    keyword_text,
    language_of,
    question,
    stems,
    term,
    words,
)

ANY = st.text(max_size=60)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The dog's bowl, twice: don’t!", ["the", "dog", "bowl", "twice", "don", "t"]),
        ("STRASSE und Straße", ["strasse", "und", "strasse"]),
        ("我的iPhone坏了", ["我的", "iphone", "坏了"]),
        ("我", ["我"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("снег_идёт 3.5", ["снег", "идёт", "3", "5"]),
        ("?!", []),
    ],
)
def test_words_are_runs_of_letters_in_any_script(text: str, found: list[str]) -> None:
    assert words(text) == found


@given(ANY)
def test_composed_and_decomposed_texts_have_the_same_words(text: str) -> None:
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))


@given(ANY)
def test_words_of_words_are_the_words(text: str) -> None:
    assert [again for word in words(text) for again in words(word)] == words(text)


@given(ANY, st.sampled_from([*STOP_WORDS, "finnish", "simple"]))
def test_a_bag_counts_every_stem(text: str, language: str) -> None:
    found = bag(text, language)
    kept = stems(words(text), language)
    assert found.length == max(1, len(kept))
    assert int(found.counts.sum()) == len(kept)
    assert set(found.terms.tolist()) == {term(stem) for stem in kept}


@given(ANY)
def test_a_packed_bag_holds_its_terms_in_order(text: str) -> None:
    found = bag(text, "english")
    entries = np.frombuffer(found.packed(), ENTRY)
    assert entries["term"].tolist() == sorted(set(found.terms.tolist()))
    assert entries["count"].tolist() == found.counts.tolist()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where does my dog sleep?", "english"),
        ("Wo schläft denn mein Hund?", "german"),
        ("Où est-ce que mon chien dort ?", "french"),
        ("¿Dónde duerme mi perro?", "spanish"),
        ("Где спит моя собака?", "russian"),
        ("Собака", "russian"),
        ("Σκύλος", "greek"),
        ("我的狗睡在哪里", "simple"),
        ("", "english"),
    ],
)
def test_function_words_tell_the_language_and_script_does_without_them(text: str, language: str) -> None:
    assert language_of(text) == language


def test_a_text_that_tells_nothing_has_the_language_around_it() -> None:
    assert language_of("Rex!", "german") == "german"


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("english", "she was running", "run"),
        ("russian", "собаки", "собакой"),
        ("german", "die Häuser", "Hauses"),
        ("french", "les chevaux", "cheval"),
        ("spanish", "los perros", "perro"),
    ],
)
def test_forms_of_a_word_are_one_term(language: str, one: str, other: str) -> None:
    assert bag(one, language).terms.tolist() == bag(other, language).terms.tolist()


def test_a_question_is_stemmed_in_every_language_a_scope_may_hold() -> None:
    asked = question("Where do dogs sleep?", ("german",))
    found = {
        (language, asked.words[place]) for language, place in zip(asked.languages, asked.places, strict=True)
    }
    assert asked.own == {2, 3}
    assert {("english", "dogs"), ("german", "dogs"), ("german", "where")} <= found
    assert ("english", "where") not in found


def test_the_day_and_a_name_can_be_searched_for() -> None:
    day = datetime(2026, 5, 9, tzinfo=UTC)
    assert keyword_text("Hi", speaker="Ann", said_at=day, language="english") == "[9 May 2026] Ann: Hi"
    assert keyword_text("Да", speaker="user", said_at=day, language="russian") == "[9 мая 2026] Да"
    assert keyword_text("Hi", speaker="user", said_at=None, language="english") == "Hi"
    assert [len(months) for months in MONTHS.values()] == [12] * len(STOP_WORDS)


def test_only_names_are_embedded_with_what_they_said() -> None:
    assert embedded_text("Hi", speaker="Ann") == "Ann: Hi"
    assert [embedded_text("Hi", speaker=one) for one in ("user", "assistant", "")] == ["Hi"] * 3


def test_a_question_ends_as_one() -> None:
    assert [asks(one) for one in ("Why? ", "为什么？", "Why? Because.")] == [True, True, False]
