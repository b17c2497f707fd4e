"""What the file says about a collection's place, and what becomes of it."""

import re
from pathlib import Path

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError
from typer.testing import CliRunner

from agentflow.cli.commands import app
from agentflow.cli.memory.places import _arrived
from agentflow.errors import AgentflowError, ConfigError
from agentflow.settings import Collection
from agentflow.settings.collections import PlaceOptions
from agentflow.wiring.homes import vector_home, vector_homes

STORE = "langchain_core.vectorstores:InMemoryVectorStore"


def named(**fields: object) -> str:
    """The place that a collection called "notes" gets, with configuration in /etc/a."""
    return vector_home("notes", Collection.model_validate(fields), Path("/etc/a"), 2).place


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"backend": "FAISS"}, "faiss in RAM #"),
        ({"backend": "qdrant", "location": ":memory:"}, "qdrant in RAM #"),
        (
            {"backend": "qdrant", "location": "SSD"},
            "qdrant in /etc/a/.agentflow/vectors/notes, collection agentflow-notes",
        ),
        ({"backend": "qdrant", "location": "/data"}, "qdrant in /data, collection agentflow-notes"),
        (
            {"backend": "qdrant", "location": "http://q:6333", "options": {"index": "i"}},
            "qdrant at http://q:6333, collection i",
        ),
        (
            {"backend": "pinecone", "options": {"api_key": "k", "index": "i"}},
            "pinecone index i, namespaces agentflow-notes-*",
        ),
        ({"backend": "langchain", "options": {"store": STORE}}, f"{STORE} through LangChain #"),
    ],
)
def test_backend_and_location_name_a_place(fields: dict[str, object], place: str) -> None:
    assert named(**fields).startswith(place)


@pytest.mark.parametrize(
    ("fields", "way_out"),
    [
        ({"location": "RAM"}, "Postgres keeps its own; leave location out"),
        ({"backend": "faiss", "location": "http://a"}, "write RAM, SSD or a folder"),
        ({"backend": "qdrant", "location": "remote"}, "write RAM, SSD, a folder or the server's address"),
        ({"backend": "pinecone"}, "needs options.api_key: env:NAME"),
        ({"backend": "pinecone", "options": {"api_key": "k"}}, "needs options.index"),
        ({"backend": "langchain"}, "needs options.store, such as langchain_core"),
        (
            {"backend": "langchain", "location": "remote", "options": {"store": STORE}},
            "needs {scope} in one of",
        ),
        ({"backend": "langchain", "options": {"store": "os.system"}}, "String should match pattern"),
    ],
)
def test_a_place_that_cannot_be_is_refused_with_the_way_out(fields: dict[str, object], way_out: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(way_out)):
        Collection.model_validate(fields)


def test_only_collections_outside_postgres_have_a_home() -> None:
    collections = {"conversations": Collection(), "notes": Collection(backend="faiss", location="ram")}
    assert [*vector_homes(collections, Path(), 2)] == ["notes"]


@pytest.mark.parametrize("store", ["os:system", "no.such:Store", "json:JSONDecoder"])
def test_only_a_vector_store_can_be_named(store: str) -> None:
    with pytest.raises(ConfigError, match=r"collections.notes.options.store = "):
        named(backend="langchain", options={"store": store})


async def test_each_scope_has_a_store_of_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def store(embedding: object, *, name: str) -> InMemoryVectorStore:
        made.append(name)
        return InMemoryVectorStore(embedding)

    monkeypatch.setattr("agentflow.wiring.homes._store_class", lambda _name, _path: store)
    options = PlaceOptions(store=STORE, arguments={"name": "memory_{scope}"})
    home = vector_home(
        "notes", Collection(backend="langchain", location="remote", options=options), Path(), 2
    )
    for scope in (4, 7, 4):
        await home.put(scope, [scope], np.float32([[1, 0]]))
    assert made == ["memory_4", "memory_7"]


FILE = "collections:\n  conversations: {backend: postgres}\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere", "--to", "faiss"], "There is no collection nowhere; there are conversations."),
        (["conversations", "--to", "pinecone"], "needs options.api_key"),
        (
            ["conversations", "--to", "langchain", "-o", "store=json:JSONDecoder"],
            "is no LangChain VectorStore",
        ),
    ],
)
def test_a_move_that_cannot_be_changes_nothing(tmp_path: Path, arguments: list[str], reason: str) -> None:
    file = tmp_path / "agentflow.yaml"
    file.write_text(FILE)
    told = CliRunner().invoke(app, ["memory", "move", *arguments, "-c", str(file)])
    assert isinstance(told.exception, AgentflowError)
    assert reason in told.exception.message
    assert file.read_text() == FILE


def test_a_move_can_be_printed_instead(tmp_path: Path) -> None:
    file = tmp_path / "agentflow.yaml"
    file.write_text(FILE)
    told = CliRunner().invoke(
        app, ["memory", "move", "conversations", "--to", "faiss", "--print", "-c", str(file)]
    )
    assert '{"backend": "faiss"}' in told.stdout
    assert file.read_text() == FILE


@pytest.mark.parametrize(
    ("told", "there"),
    [
        ({"location": "ram", "place": "faiss in RAM #1"}, False),  # the file is not read again yet
        ({"location": "ssd", "place": "faiss in RAM #1", "moving_to": "faiss in v #2"}, False),
        ({"location": "ssd", "place": "faiss in v #2", "told": [{"serving": False}]}, False),
        ({"location": "ssd", "place": "faiss in v #2"}, True),
    ],
)
def test_a_move_within_a_backend_is_waited_for_too(told: dict[str, object], there: bool) -> None:
    state = {"backend": "faiss", "moving_to": None, "told": [{"serving": True}], **told}
    assert _arrived(state, Collection(backend="faiss", location="SSD")) is there
