"""Small roles and an embedder for routing tests: texts near each other where they share words."""

import asyncio

import numpy as np
import pytest

from agentflow.fakes.embedder import FakeEmbedder
from agentflow.routing.classifier import Classifier, examples_of, fit
from agentflow.routing.roles import RoleExamples
from agentflow.settings.routing import RouterSettings

CODER = RoleExamples(
    "coder",
    examples=(
        "fix this python function",
        "why does my python loop never end",
        "write a unit test for this class",
        "refactor this python class",
        "the python test of my function fails",
        "write a function that sorts a list",
    ),
)
ARTIST = RoleExamples(
    "artist",
    examples=(
        "paint a sunset over the sea",
        "paint a castle in oil colours",
        "draw a dragon over the castle",
        "draw the sea in warm colours",
        "a watercolour of two cats",
        "paint two cats in the sunset",
    ),
)
THINKER = RoleExamples(
    "philosopher",
    examples=(
        "what is the meaning of life",
        "is it ever right to lie",
        "what did kant say about duty",
        "do we have free will",
        "what is the good life",
        "is duty the meaning of life",
    ),
)
ROLES = (CODER, ARTIST, THINKER)


def embed(texts: list[str]) -> np.ndarray:
    """Vectors of the shipped fake embedder."""
    return asyncio.run(FakeEmbedder().embed(texts))


def fitted(roles=ROLES, **settings) -> Classifier:
    """A classifier on these roles, with router settings by keyword."""
    router = RouterSettings(**settings)
    examples = examples_of(roles, router)
    texts = [one.text for one in examples]
    return fit(examples, dict(zip(texts, embed(texts), strict=True)), router)


@pytest.fixture(scope="session")
def roles() -> tuple[RoleExamples, ...]:
    """Three roles of six examples."""
    return ROLES


@pytest.fixture(scope="session")
def three() -> Classifier:
    """A classifier on those."""
    return fitted()


@pytest.fixture(scope="session")
def fit_roles():
    """A function that fits: roles, then router settings by keyword."""
    return fitted


@pytest.fixture(scope="session")
def vectors_of():
    """A function from texts to vectors."""
    return embed
