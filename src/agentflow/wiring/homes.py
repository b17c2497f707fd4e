"""Which place the settings give to each collection's vectors."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from agentflow.errors import ConfigError, StartError
from agentflow.protocols import VectorHome
from agentflow.settings import Collection

Open = Callable[[str, Collection, Path, int], VectorHome]


def vector_homes(collections: Mapping[str, Collection], folder: Path, dim: int) -> dict[str, VectorHome]:
    """Places of those collections whose vectors Postgres does not search; nothing is opened yet.

    Raises StartError for an extra that is not installed, ConfigError for a store that cannot be imported.
    """
    return {
        name: vector_home(name, collection, folder, dim)
        for name, collection in collections.items()
        if collection.backend != "postgres"
    }


def vector_home(name: str, collection: Collection, folder: Path, dim: int) -> VectorHome:
    """The place of one collection. Raises StartError, ConfigError."""
    opened: dict[str, Open] = {
        "faiss": _faiss,
        "qdrant": _qdrant,
        "pinecone": _pinecone,
        "langchain": _langchain,
    }
    try:
        return opened[collection.backend](name, collection, folder, dim)
    except ModuleNotFoundError as error:
        raise StartError(
            f"collections.{name}.backend = {collection.backend} needs the package {error.name}, which is not "
            f"installed: pip install 'agentflow[{collection.backend}]'.",
            field=f"collections.{name}.backend",
            value=collection.backend,
        ) from error


def _faiss(name: str, collection: Collection, folder: Path, dim: int) -> VectorHome:
    from agentflow.memory.faiss import FaissHome  # noqa: PLC0415 - an extra

    own = collection.folder(name)
    where = None if own is None else folder / own.expanduser()
    return FaissHome(dim, where, exact_below=collection.options.exact_below)


def _qdrant(name: str, collection: Collection, folder: Path, dim: int) -> VectorHome:
    from agentflow.memory.qdrant import QdrantHome, QdrantPlace  # noqa: PLC0415 - an extra

    own = collection.folder(name)
    where = QdrantPlace(
        folder=None if own is None else folder / own.expanduser(),
        url=collection.location if collection.is_address else None,
        api_key=collection.api_key or None,
    )
    return QdrantHome(dim, collection.options.index or f"agentflow-{name}", where)


def _pinecone(name: str, collection: Collection, _folder: Path, dim: int) -> VectorHome:
    from agentflow.memory.pinecone import PineconeHome, PineconePlace  # noqa: PLC0415 - an extra

    where = PineconePlace(
        api_key=collection.api_key,
        name=collection.options.index or "",
        host=collection.location if collection.is_address else "",
    )
    return PineconeHome(dim, f"agentflow-{name}", where)


def _langchain(name: str, collection: Collection, _folder: Path, _dim: int) -> VectorHome:
    from agentflow.memory.langchain import LangChainHome  # noqa: PLC0415 - beside the other homes

    store = _store_class(name, collection.options.store or "")
    make = partial(_made, store, collection.options.arguments, collection.options.embedding)
    return LangChainHome(make, collection.options.store or "", lasting=collection.location == "remote")


def _store_class(name: str, path: str) -> type[VectorStore]:
    """The class that the file names; nothing else ever chooses what is imported."""
    module, _, attribute = path.partition(":")
    field = f"collections.{name}.options.store"
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{field} = {path} cannot be imported ({error}).", field=field, value=path
        ) from error
    if not (isinstance(found, type) and issubclass(found, VectorStore)):
        raise ConfigError(f"{field} = {path} is no LangChain VectorStore.", field=field, value=path)
    return found


def _made(
    store: type[VectorStore], arguments: Mapping[str, Any], embedding: str, scope: int, given: Embeddings
) -> VectorStore:
    filled = {
        key: value.replace("{scope}", str(scope)) if isinstance(value, str) else value
        for key, value in arguments.items()
    }
    return store(**{embedding: given, **filled})
