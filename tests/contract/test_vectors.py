"""What every home of vectors does: one suite for the fake and all places outside Postgres."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from agentflow.errors import HomeDown
from agentflow.fakes import pinecone as double
from agentflow.fakes.vectors import FakeVectors
from agentflow.memory.faiss import FaissHome
from agentflow.memory.langchain import LangChainHome
from agentflow.memory.pinecone import PineconeHome, PineconePlace
from agentflow.memory.qdrant import QdrantHome, QdrantPlace
from agentflow.protocols import VectorHome

EAST, NORTH, BETWEEN = np.float32([1, 0]), np.float32([0, 1]), np.float32([0.8, 0.6])
PLACES = ["fake", "faiss", "faiss graph", "faiss files", "qdrant", "qdrant files", "pinecone", "langchain"]
KEEPING = ["faiss files", "faiss graph files", "qdrant files", "pinecone"]


@pytest.fixture(scope="session")
def index() -> Iterator[tuple[str, double.PineconeDouble]]:
    with double.serve(2) as served:
        yield served


@pytest.fixture
def address(index: tuple[str, double.PineconeDouble]) -> str:
    index[1].spaces.clear()
    return index[0]


def made(name: str, folder: Path, address: str) -> VectorHome:
    homes: dict[str, Any] = {
        "fake": FakeVectors,
        "faiss": lambda: FaissHome(2),
        "faiss graph": lambda: FaissHome(2, exact_below=1),
        "faiss files": lambda: FaissHome(2, folder),
        "faiss graph files": lambda: FaissHome(2, folder, exact_below=1),
        "qdrant": lambda: QdrantHome(2, "test"),
        "qdrant files": lambda: QdrantHome(2, "test", QdrantPlace(folder)),
        "pinecone": lambda: PineconeHome(2, "test", PineconePlace("key", host=address, timeout=5)),
        "langchain": lambda: LangChainHome(
            lambda _, given: InMemoryVectorStore(given), "InMemoryVectorStore"
        ),
    }
    return homes[name]()


@pytest.fixture(params=PLACES)
async def home(request: pytest.FixtureRequest, tmp_path: Path, address: str) -> AsyncIterator[VectorHome]:
    opened = made(request.param, tmp_path, address)
    await opened.open()
    yield opened
    await opened.close()


async def test_the_nearest_come_first_and_no_more_than_asked(home: VectorHome) -> None:
    await home.put(1, [10, 11, 12], np.array([NORTH, EAST, BETWEEN]))
    assert await home.nearest(1, EAST, 9) == [11, 12, 10]
    assert await home.nearest(1, EAST, 2) == [11, 12]


async def test_a_scope_sees_its_own_only(home: VectorHome) -> None:
    await home.put(1, [10], EAST[None])
    await home.put(2, [20], EAST[None])
    assert [await home.nearest(scope, EAST, 9) for scope in (1, 2, 3)] == [[10], [20], []]
    assert await home.missing(1, [20, 10]) == [20]


async def test_putting_again_replaces(home: VectorHome) -> None:
    await home.put(1, [10, 11], np.array([EAST, NORTH]))
    await home.put(1, [10], NORTH[None])
    await home.put(1, [11], EAST[None])
    assert await home.nearest(1, EAST, 9) == [11, 10]
    assert await home.count(1) in (2, None)


async def test_what_is_deleted_is_gone_and_unknown_ids_are_no_error(home: VectorHome) -> None:
    await home.put(1, [10, 11], np.array([EAST, NORTH]))
    await home.delete(1, [10, 99])
    await home.delete(7, [10])
    assert await home.nearest(1, EAST, 9) == [11]
    assert await home.missing(1, [10, 11]) == [10]
    await home.put(1, [10], EAST[None])
    assert await home.nearest(1, EAST, 9) == [10, 11]


async def test_a_dropped_scope_is_empty_and_can_be_used_again(home: VectorHome) -> None:
    await home.put(1, [10], EAST[None])
    await home.put(2, [20], EAST[None])
    await home.drop(1)
    await home.drop(3)
    assert [await home.nearest(scope, EAST, 9) for scope in (1, 2)] == [[], [20]]
    await home.put(1, [11], EAST[None])
    assert await home.nearest(1, EAST, 9) == [11]


@pytest.mark.parametrize("name", KEEPING)
async def test_what_was_flushed_is_there_in_the_next_process(name: str, tmp_path: Path, address: str) -> None:
    first = made(name, tmp_path, address)
    await first.open()
    await first.put(1, [10, 11], np.array([EAST, NORTH]))
    await first.delete(1, [11])
    await first.flush()
    await first.close()
    second = made(name, tmp_path, address)
    await second.open()
    assert (second.place, second.lasting) == (first.place, True)
    assert await second.nearest(1, EAST, 9) == [10]
    assert await second.count(1) == 1
    await second.close()


async def test_an_index_that_does_not_answer_is_a_home_that_is_down(
    index: tuple[str, double.PineconeDouble], address: str
) -> None:
    home = PineconeHome(2, "test", PineconePlace("key", host=address, timeout=2))
    await home.open()
    index[1].down = True
    with pytest.raises(HomeDown, match="does not answer"):
        await home.nearest(1, EAST, 1)
    index[1].down = False
    await home.close()


async def test_nothing_listens_where_qdrant_should_be() -> None:
    home = QdrantHome(2, "test", QdrantPlace(url="http://127.0.0.1:9"))
    with pytest.raises(HomeDown, match=r"qdrant at http://127.0.0.1:9, collection test does not answer"):
        await home.nearest(1, EAST, 1)


async def test_an_index_of_another_width_is_refused(address: str) -> None:
    home = PineconeHome(3, "test", PineconePlace("key", host=address))
    with pytest.raises(HomeDown, match="holds vectors of 2 dimensions, the embedder gives 3"):
        await home.open()
