"""Word vectors in two bits a dimension: cosines come back within a few hundredths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.records.memory.vocabulary import FAR, NEIGHBOURS, relations
from agentflow.retrieval.sketch import packed, unpacked


def unit(random: np.random.Generator, number: int, dim: int) -> np.ndarray:
    vectors = random.normal(size=(number, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("near", [0.0, 0.5, 0.9])
def test_a_cosine_with_a_sketch_is_the_cosine_but_for_a_few_hundredths(near: float) -> None:
    random = np.random.default_rng(3)
    vectors = unit(random, 400, 384)
    mixed = near * vectors + np.sqrt(1 - near**2) * unit(random, 400, 384)
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    off = (unpacked(packed(vectors), 384) * mixed).sum(axis=1) - (vectors * mixed).sum(axis=1)
    assert abs(off.mean()) < 0.005
    assert off.std() < 0.03


@given(st.integers(1, 9), st.integers(1, 50), st.integers(0, 99))
def test_any_number_of_dimensions_is_packed_four_a_byte(number: int, dim: int, seed: int) -> None:
    vectors = unit(np.random.default_rng(seed), number, dim)
    sketches = packed(vectors)
    assert {len(one) for one in sketches} == {-(-dim // 4)}
    assert np.array_equal(np.sign(unpacked(sketches, dim)), np.where(vectors < 0, -1, 1))


def test_new_words_are_related_both_ways_to_each_other_and_to_known_ones() -> None:
    one, other, third = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1]], np.float32) / 2
    new = np.array([one, 0.96 * one + 0.28 * other, third], np.float32)
    sketches = packed(np.array([-one, third]))
    found = relations(np.array([5, -7, 9]), new, np.array([11, 13]), sketches)
    near = (found.entries & 0xFFFFFFFF) - 2**31
    pairs = {(term, other) for term, other in zip(found.terms.tolist(), near.tolist(), strict=True)}
    assert {(5, -7), (-7, 5), (9, 13), (13, 9)} <= pairs
    assert not any(11 in pair or pair in {(5, 9), (9, 5)} for pair in pairs)
    assert all(term != other for term, other in pairs)
    nearness = dict(
        zip(zip(found.terms.tolist(), near.tolist(), strict=True), found.entries >> 32, strict=True)
    )
    assert nearness[5, -7] / 65535 == pytest.approx((0.96 - FAR) / (1 - FAR), abs=1e-4)


def test_of_a_new_word_only_the_nearest_are_looked_at() -> None:
    vectors = np.ones((1, 4), np.float32) / 2
    found = relations(np.array([0]), vectors, np.arange(1, 100), packed(np.repeat(vectors, 99, axis=0)))
    assert len(found.terms) == 2 * NEIGHBOURS
