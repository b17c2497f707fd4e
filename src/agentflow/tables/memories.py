"""What is remembered, in collections and the scopes within them.

Codes: collection.kind 1 conversation 2 documents 3 facts. scope: a user's, a role's or a thread's; null: everybody's.
scope.n_docs, sum_len, langs, posted: how many items, their length in terms, the languages among them, and whether it is
so large that it has postings (records/memory/postings.py).
memory.kind 1 turn 2 document chunk 3 fact 4 summary. memory.trust 1 the user said it 2 our assistant said it.
memory.seq: the place within session_id, a stretch of conversation; thread.session_seq counts it.
memory.bow: a packed bag of words (retrieval/terms.py), null until indexed. memory.embedding: its vector as a code
(retrieval/codes.py), null while owed; memory.vector: the same as pgvector compares it, of a scope with postings only.
memory.history: its earlier wordings, oldest first; meta of a chunk: its heading, page, line and part.
link: the memories that a derived one was made from.
receipt: what was forgotten, in numbers; `owner` and `selector` are digests, `written` the transaction that did it.
"""

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from agentflow.tables.schema import at, collection_id, memory_id_seq, meta, metadata, session_seq, tenant

collection = Table(
    "collection",
    metadata,
    Column("id", Integer, primary_key=True),
    tenant(),
    Column("name", Text, nullable=False),
    Column("kind", SmallInteger, nullable=False, server_default=text("1")),
    Column("backend", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("embed_model", Text, nullable=False),
    meta(),
    at("created_at"),
    UniqueConstraint("tenant", "name"),
)

scope = Table(
    "scope",
    metadata,
    Column("id", Integer, primary_key=True),
    tenant(),
    collection_id(),
    Column("user_ref", Text),
    Column("role_name", Text),
    Column("thread_id", Uuid),
    Column("n_docs", Integer, nullable=False, server_default=text("0")),
    Column("sum_len", BigInteger, nullable=False, server_default=text("0")),
    Column("langs", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("posted", Boolean, nullable=False, server_default=text("false")),
    UniqueConstraint(
        "collection_id", "user_ref", "role_name", "thread_id", postgresql_nulls_not_distinct=True
    ),
    postgresql_with={"fillfactor": 70},
)
Index("scope_user_ix", scope.c.tenant, scope.c.user_ref)

memory = Table(
    "memory",
    metadata,
    Column("collection_id", Integer, nullable=False),
    Column("id", BigInteger, nullable=False, server_default=memory_id_seq.next_value()),
    tenant(),
    Column("scope_id", Integer, nullable=False),
    Column("kind", SmallInteger, nullable=False, server_default=text("1")),
    Column("trust", SmallInteger, nullable=False),
    Column("session_id", BigInteger, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("speaker", Text, nullable=False),
    Column("said_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("content", Text, nullable=False),
    Column("embedding", LargeBinary),
    Column("vector", HALFVEC),
    Column("lang", Text, nullable=False, server_default=text("'english'")),
    Column("bow", LargeBinary),
    Column("doc_len", SmallInteger, nullable=False, server_default=text("1")),
    Column("is_question", Boolean, nullable=False, server_default=text("false")),
    Column("n_tokens", Integer, nullable=False, server_default=text("0")),
    Column("thread_id", Uuid),
    Column("source_message", Uuid),
    Column("chunk_no", Integer, nullable=False, server_default=text("0")),
    Column("role_name", Text),
    Column("adapter", Text),
    Column("hidden", Boolean, nullable=False, server_default=text("false")),
    Column("expires_at", DateTime(timezone=True)),
    meta(),
    at("created_at"),
    Column("pinned", Boolean, nullable=False, server_default=text("false")),
    Column("document_id", BigInteger),
    Column("history", JSONB, nullable=False, server_default=text("'[]'")),
    PrimaryKeyConstraint("collection_id", "id"),
    postgresql_partition_by="LIST (collection_id)",
)
Index(
    "memory_source_uq",
    memory.c.collection_id,
    memory.c.source_message,
    memory.c.chunk_no,
    unique=True,
    postgresql_where=memory.c.source_message.is_not(None),
)
Index("memory_position_ix", memory.c.collection_id, memory.c.scope_id, memory.c.session_id, memory.c.seq)
Index("memory_thread_ix", memory.c.thread_id, postgresql_where=memory.c.thread_id.is_not(None))
Index("memory_document_ix", memory.c.document_id, postgresql_where=memory.c.document_id.is_not(None))
Index("memory_pinned_ix", memory.c.scope_id, postgresql_where=memory.c.pinned)
Index("memory_expires_ix", memory.c.expires_at, postgresql_where=memory.c.expires_at.is_not(None))

document = Table(
    "document",
    metadata,
    Column("id", BigInteger, primary_key=True),
    tenant(),
    collection_id(),
    Column("scope_id", Integer, ForeignKey("agentflow.scope.id", ondelete="CASCADE"), nullable=False),
    Column("user_ref", Text),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False, server_default=text("0")),
    Column("session_id", BigInteger, nullable=False, server_default=session_seq.next_value()),
    at("created_at"),
    at("updated_at"),
    UniqueConstraint("scope_id", "name"),
)

link = Table(
    "link",
    metadata,
    tenant(),
    Column("item_id", BigInteger, nullable=False),
    Column("source_id", BigInteger, nullable=False),
    PrimaryKeyConstraint("item_id", "source_id"),
)
Index("link_source_ix", link.c.source_id)

receipt = Table(
    "receipt",
    metadata,
    Column("id", Uuid, primary_key=True),
    tenant(),
    Column("owner", LargeBinary, nullable=False),
    Column("selected_by", Text, nullable=False),
    Column("selector", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("counts", JSONB, nullable=False),
    Column("written", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
    at("created_at"),
)
Index("receipt_owner_ix", receipt.c.tenant, receipt.c.owner, receipt.c.created_at)
