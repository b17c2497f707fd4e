"""Memories as they travel: one JSON object per line. A document's line comes before those of its chunks."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import NAMESPACE_OID, UUID, uuid5

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
)

from agentflow.documents.chunks import Chunk
from agentflow.errors import BadInput
from agentflow.protocols import DOCUMENTS, NewMemory
from agentflow.records.memory.rights import Owner
from agentflow.records.memory.writing import KINDS
from agentflow.turn import Json

LONGEST = 1 << 20  # bytes of a line: a memory with all its earlier wordings
PLACES = 1 << 20  # within a session, as fusion counts them
SESSIONS = 1 << 43
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Content = Annotated[str, Field(min_length=1, max_length=20_000, pattern=r"^[^\x00]*$")]


class Former(BaseModel):
    """An earlier wording."""

    model_config = ConfigDict(extra="forbid")

    content: Content
    until: str = Field(max_length=40)


class Marks(BaseModel):
    """What an owner has done to a memory."""

    model_config = ConfigDict(extra="forbid")

    pinned: bool = False
    hidden: bool = False
    expires_at: AwareDatetime | None = None
    history: list[Former] = Field(default_factory=list)

    @property
    def marked(self) -> bool:
        return self.pinned or self.hidden or self.expires_at is not None or bool(self.history)


class Set(BaseModel):
    """Where something is found: by one role or in one conversation only, or by all of the user's."""

    model_config = ConfigDict(extra="forbid")

    only_role: Name | None = None
    only_thread: UUID | None = None


class Line(Marks, Set):
    """A memory that is no chunk. `uid` is what it came from; the same one is imported once.

    `place` is its own in its session; None: after the line before it.
    """

    uid: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    collection: Name = "conversations"
    kind: Literal["turn", "fact", "summary"] = "turn"
    speaker: Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]
    said_at: AwareDatetime | None = None
    content: Content
    session: Annotated[str, Field(max_length=200)] | Annotated[int, Field(ge=0, lt=SESSIONS)] = 0
    place: Annotated[int, Field(ge=0, lt=PLACES)] | None = None
    trust: Literal[1, 2, 3, 4, 5, 6] | None = None
    role: Name | None = None
    thread_id: UUID | None = None
    sources: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(default_factory=list)

    def sources_for(self, owner: Owner) -> tuple[tuple[UUID, int], tuple[UUID, int]]:
        """What it came from, as its writer's turns have it and as this owner's import does: message and piece."""
        return sources(self.uid or f"{self.speaker}\x1f{self.said_at}\x1f{self.content}", owner)

    def memory(self, owner: Owner, place: int) -> NewMemory:
        """As it is written, at `place`."""
        (original, piece), _ = self.sources_for(owner)
        return NewMemory(
            self.collection,
            place,
            self.speaker,
            self.content,
            piece=piece,
            said_at=self.said_at,
            kind=self.kind,
            trust=self.trust,
            cited={"imported": str(original)},
        )


class DocumentLine(Set):
    """A document; its chunks are the lines that follow. `digest` is that of the file that was read, if all is there."""

    kind: Literal["document"]
    name: Name
    collection: Name = DOCUMENTS
    media_type: Name = "application/octet-stream"
    digest: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    bytes: int = Field(0, ge=0, lt=1 << 60)
    chunks: int = Field(ge=0)
    updated_at: AwareDatetime
    everybody: bool = False


class ChunkLine(Marks):
    """A chunk of the document before it, named once more; `place` counts from 0, `part`, page and line from 1."""

    kind: Literal["chunk"]
    document: Name
    content: Content
    place: int = Field(ge=0, lt=PLACES)
    said_at: AwareDatetime | None = None
    part: int = Field(ge=1, lt=PLACES)
    heading: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")] = ""
    page: int | None = None
    line: int | None = None

    @property
    def chunk(self) -> Chunk:
        """As the file was cut: earlier than any rewording."""
        first = self.history[0].content if self.history else self.content
        return Chunk(first, self.part, self.heading, self.page, self.line)


@dataclass(frozen=True)
class Whole:
    """A document with the chunks that came."""

    document: DocumentLine
    chunks: list[ChunkLine]

    @property
    def digest(self) -> bytes:
        """Nothing if chunks are missing: the file is read again when it is added again."""
        return bytes.fromhex(self.document.digest) if len(self.chunks) == self.document.chunks else b""


def _kind(given: Any) -> str:
    kind = given.get("kind") if isinstance(given, dict) else None
    return kind if kind in ("document", "chunk") else "memory"


Any_ = Annotated[
    Annotated[Line, Tag("memory")]
    | Annotated[DocumentLine, Tag("document")]
    | Annotated[ChunkLine, Tag("chunk")],
    Discriminator(_kind),
]
READ: TypeAdapter[Line | DocumentLine | ChunkLine] = TypeAdapter(Any_)


def parsed(text: bytes, number: int) -> Line | DocumentLine | ChunkLine:
    """Raises BadInput with the line's number."""
    if len(text) > LONGEST:
        raise BadInput(f"Line {number} has {len(text)} bytes; a memory has {LONGEST} at most.", field="line")
    try:
        return READ.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the line"
        raise BadInput(f"Line {number}: {where}: {first['msg']}.", field="line", value=number) from error


def sources(uid: str, owner: Owner) -> tuple[tuple[UUID, int], tuple[UUID, int]]:
    """Others may have imported the same line: theirs and ours are two memories."""
    head, _, tail = uid.rpartition("/")
    numbered = bool(head) and tail.isdecimal() and len(tail) < 7
    name, piece = (head, int(tail)) if numbered else (uid, 0)
    try:
        original = UUID(name)
    except ValueError:
        original = uuid5(NAMESPACE_OID, name)
    return (original, piece), (uuid5(original, f"{owner.tenant}/{owner.user}"), piece)


def memory_line(row: Any) -> Json:
    """A row of portable.EXPORTED."""
    number, collection, kind, speaker, said_at, content, session, seq, trust, role, thread, *rest = row
    source, piece, pinned, hidden, expires_at, history, only_role, only_thread, made_of = rest
    return _told({
        "uid": f"{source}/{piece}" if source else f"memory:{number}",
        "collection": collection,
        "kind": KINDS[kind],
        "speaker": speaker,
        "said_at": said_at,
        "content": content,
        "session": session,
        "place": seq,
        "trust": trust,
        "role": role,
        "thread_id": thread,
        "pinned": pinned,
        "hidden": hidden,
        "expires_at": expires_at,
        "history": history,
        "only_role": only_role,
        "only_thread": only_thread,
        "sources": made_of,
    })  # fmt: skip


def document_line(row: Any) -> Json:
    """A row of portable.DOCUMENTS."""
    _, _, name, collection, media, digest, size, chunks, updated, everybody, only_role, only_thread = row
    return {"kind": "document", "name": name} | _told({
        "collection": collection,
        "media_type": media,
        "digest": digest,
        "bytes": size,
        "updated_at": updated,
        "everybody": everybody,
        "only_role": only_role,
        "only_thread": only_thread,
    }) | {"chunks": chunks}  # fmt: skip


def chunk_line(document: str, row: Any) -> Json:
    """A row of portable.CHUNKS."""
    _, seq, content, said_at, meta, pinned, hidden, expires_at, history = row
    cited = {key: value for key, value in meta.items() if key in ("part", "heading", "page", "line")}
    marks = _told({"pinned": pinned, "hidden": hidden, "expires_at": expires_at, "history": history})
    head = {
        "kind": "chunk",
        "document": document,
        "content": content,
        "place": seq,
        **_told({"said_at": said_at}),
    }
    return {**head, **cited, **marks}


def as_line(told: Json) -> bytes:
    """A memory as one line of JSON."""
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def _told(values: Json) -> Json:
    """What is worth telling, as JSON has it."""
    return {key: _plain(value) for key, value in values.items() if value not in (None, False, [], "")}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value) if isinstance(value, UUID) else value
