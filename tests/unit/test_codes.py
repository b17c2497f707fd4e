"""Vectors in six bits a dimension."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.retrieval.codes import coded, cosines, decoded, rotated


def unit(number: int, dim: int, seed: int = 1) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(number, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_code_is_three_quarters_of_a_byte_a_dimension() -> None:
    assert [len(coded(unit(1, dim))[0]) for dim in (2, 3, 384)] == [2, 3, 288]


def test_stored_codes_stay_readable() -> None:
    vectors = np.float32([[1, 0, 0, 0], [0, 0.6, -0.8, 0], [0, 0, 0, 2]])
    assert [code.hex() for code in coded(vectors)] == ["5555aa", "478b99", "5aa596"]


@given(st.integers(2, 500), st.integers(0, 1000))
def test_a_rotation_undoes_itself_and_changes_no_cosine(dim: int, seed: int) -> None:
    vectors = unit(3, dim, seed)
    turned = rotated(vectors)
    np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-5)


@pytest.mark.parametrize("dim", [384, 385, 1536])
def test_a_vector_comes_back_nearly(dim: int) -> None:
    vectors = unit(100, dim)
    back = decoded(coded(vectors), dim)
    assert (back * vectors).sum(axis=1).min() > 0.998


def test_few_large_numbers_among_small_ones_cost_no_more() -> None:
    vectors = unit(100, 384) * np.where(np.arange(384) == 7, 20, 1).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (decoded(coded(vectors), 384) * vectors).sum(axis=1).min() > 0.998


def test_cosines_of_codes_are_those_of_their_vectors_to_two_hundredths() -> None:
    vectors, asked = unit(1500, 384), unit(1, 384, seed=2)[0]
    found = cosines(b"".join(coded(vectors)), 1500, asked)
    assert np.abs(found - vectors @ asked).max() < 0.02


def test_nothing_has_no_cosines() -> None:
    assert cosines(b"", 0, np.float32([1, 0])).tolist() == []
    assert decoded([], 384).shape == (0, 384)
