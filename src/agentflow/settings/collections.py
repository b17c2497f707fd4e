"""The `collections` block: sets of memories, each with a place where its vectors are searched."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from agentflow.settings.values import Seconds, Section, lowered

Language = Literal[
    "auto", "simple", "arabic", "armenian", "basque", "catalan", "danish", "dutch", "english", "finnish", "french",
    "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian",
    "portuguese", "romanian", "russian", "serbian", "spanish", "swedish", "tamil", "turkish", "yiddish",
]  # fmt: skip
Backend = Literal["postgres", "faiss", "qdrant", "pinecone", "langchain"]
WORDS = {"postgres", "ram", "ssd", "disk", "remote"}
USUAL: dict[str, str] = {
    "postgres": "postgres",
    "faiss": "ram",
    "qdrant": "ram",
    "pinecone": "remote",
    "langchain": "ram",
}


def _location(value: Any) -> Any:
    """Words in any case; paths and addresses as they are."""
    if isinstance(value, str) and value.lower() in {*WORDS, ":memory:"}:
        return value.lower().replace(":memory:", "ram").replace("disk", "ssd")
    return str(value) if isinstance(value, Path) else value


class PlaceOptions(Section):
    """What a backend needs beyond its location."""

    api_key: SecretStr | None = Field(None, description="qdrant, pinecone: env:NAME or file:PATH.")
    index: str | None = Field(None, description="pinecone: name of the index; qdrant: of its collection.")
    store: str | None = Field(
        None,
        pattern=r"^[\w.]+:\w+$",
        description="langchain: a VectorStore by import path, package.module:Class.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="langchain: keyword arguments of the store; {scope} in a text is the number of one user's set.",
    )
    embedding: str = Field("embedding", description="langchain: the store's argument for its embedding.")
    exact_below: int = Field(20_000, ge=1, description="faiss: sets smaller than this are searched exactly.")
    timeout: Seconds = Field(0.5, description="A slower place is not waited for: words alone decide.")


class Collection(Section):
    """A set of memories. Texts and words are in Postgres always; `backend` and `location` say where its vectors
    are searched.
    """

    backend: Annotated[Backend, BeforeValidator(lowered)] = "postgres"
    location: Annotated[str, BeforeValidator(_location)] = Field(
        "postgres",
        description="postgres; RAM; SSD or a folder (faiss, qdrant); an address (qdrant, pinecone); remote (pinecone).",
    )
    options: PlaceOptions = PlaceOptions()
    ttl: Seconds | None = Field(
        None, gt=0, description="Memories are forgotten after this time, such as 90d; pinned ones stay."
    )
    language: Annotated[Language, BeforeValidator(lowered)] = Field(
        "auto", description="Whose word forms are one word; auto: told for each memory; simple: none."
    )

    @model_validator(mode="before")
    @classmethod
    def _usual_location(cls, data: Any) -> Any:
        """Each backend has a usual place."""
        if isinstance(data, dict) and "location" not in data:
            return {**data, "location": USUAL.get(str(data.get("backend", "postgres")).lower(), "postgres")}
        return data

    @model_validator(mode="after")
    def _fits(self) -> "Collection":
        refused = getattr(self, f"_{self.backend}_refuses")()
        if refused:
            raise ValueError(f"backend: {self.backend} with location: {self.location} {refused}")
        return self

    @property
    def api_key(self) -> str:
        """Empty where none is given."""
        return self.options.api_key.get_secret_value() if self.options.api_key else ""

    @property
    def is_address(self) -> bool:
        return self.location.startswith(("http://", "https://"))

    def folder(self, name: str) -> Path | None:
        """Where files lie, relative to the configuration; None for other places."""
        if self.location == "ssd":
            return Path(".agentflow") / "vectors" / name
        return None if self.location in WORDS or self.is_address else Path(self.location)

    def _postgres_refuses(self) -> str:
        return "" if self.location == "postgres" else "cannot be: Postgres keeps its own; leave location out"

    def _faiss_refuses(self) -> str:
        wrong = self.is_address or self.location in {"postgres", "remote"}
        return "cannot be; write RAM, SSD or a folder" if wrong else ""

    def _qdrant_refuses(self) -> str:
        wrong = self.location in {"postgres", "remote"}
        return "cannot be; write RAM, SSD, a folder or the server's address" if wrong else ""

    def _pinecone_refuses(self) -> str:
        if self.options.api_key is None:
            return "needs options.api_key: env:NAME"
        if self.is_address:
            return ""
        if self.location != "remote":
            return "cannot be; write remote with options.index, or the index's address"
        return "" if self.options.index else "needs options.index: the name of an index that exists"

    def _langchain_refuses(self) -> str:
        if self.options.store is None:
            return "needs options.store, such as langchain_core.vectorstores:InMemoryVectorStore"
        if self.location == "ram":
            return ""
        if self.location != "remote":
            return "cannot be; write RAM, or remote for a store that keeps what it is given"
        texts = [value for value in self.options.arguments.values() if isinstance(value, str)]
        scoped = any("{scope}" in text for text in texts)
        return (
            "" if scoped else "needs {scope} in one of options.arguments, so that each user's set is its own"
        )
