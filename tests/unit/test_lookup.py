"""A search without a turn answers as well as it can, and says how."""

import pytest

from agentflow.errors import BadInput, HomeDown
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.fakes.ledger import FakeMemory
from agentflow.protocols import NewMemory, Scope
from agentflow.runs.lookup import lookup
from agentflow.settings.schema import MemorySettings

MINE = Scope(0, "conversations", "ann")


class Faraway(FakeMemory):
    """A home whose vectors cannot be reached."""

    async def search(self, scope, text, vector, k):
        if vector is not None:
            raise HomeDown("The place of vectors does not answer.")
        return await super().search(scope, text, None, k)


async def looked(home: FakeMemory, embedder: FakeEmbedder, text: str = "Where is Rex?"):
    item = NewMemory("conversations", 0, "user", "Rex is in the garden")
    home.items.append((MINE, item, "t"))
    return await lookup(text, [MINE], k=3, home=home, embedder=embedder, memory=MemorySettings())


async def test_everything_in_reach_is_full() -> None:
    found = await looked(FakeMemory(), FakeEmbedder())
    assert (found["memory"], found["memories"][0]["content"]) == ("full", "Rex is in the garden")


async def test_an_embedder_that_is_down_leaves_the_words() -> None:
    embedder = FakeEmbedder()
    embedder.failing = True
    found = await looked(FakeMemory(), embedder)
    assert (found["memory"], found["memories"][0]["recalled"]) == ("degraded", True)


async def test_a_place_of_vectors_that_is_down_leaves_the_words() -> None:
    found = await looked(Faraway(), FakeEmbedder())
    assert (found["memory"], len(found["memories"])) == ("degraded", 1)


@pytest.mark.parametrize("text", ["", "  ", "\n"])
async def test_an_empty_question_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="say what to look for"):
        await looked(FakeMemory(), FakeEmbedder(), text)


async def test_a_question_of_stop_words_finds_nothing_and_breaks_nothing() -> None:
    found = await looked(FakeMemory(), FakeEmbedder(), "the of and?")
    assert all(not one["recalled"] for one in found["memories"])
