"""The schema as SQLAlchemy Core metadata, read by migrations/env.py; statements live in records/ and memory/.

Codes: message.role 1 system 2 user 3 assistant 4 tool. message.status 1 complete 2 partial.
run.status 0 queued 1 running 2 done 3 failed 4 cancelled. run.kind 1 turn 2 utility call 3 job
4 step (ended in tool calls, seen by no later turn) 5 turn made elsewhere or copied from another branch.
run.details: the result without the words that message and memory hold, packed (records/details.py); run.recalled:
the memories in it. run.given: what a stateless client sent beside the message, until the run ends; run.exchange: finds
it again.
run.webhook: posted to when the run ends; the trigger run_callback then asks for a job, as for work's "webhook".
memory.kind 1 turn 2 document chunk 3 fact 4 summary. memory.trust 1 the user said it 2 our assistant said it.
feedback.status 0 waiting 1 accepted 2 rejected; said_role is what the turn had, role_name what it should have had.
collection.kind 1 conversation 2 documents 3 facts. outbox.kind "embed" a vector is owed, "index" its words are.
memory.bow: a packed bag of words (retrieval/terms.py), null until indexed. scope: how many items, their length
in terms, the languages among them, and whether it is so large that it has postings (records/postings.py); posting: in
which of a scope's items a term occurs, and in block 0 in how many.
word: the words of a collection; embedding: their vectors (retrieval/sketch.py), null while owed; nearest: the words
near them (records/vocabulary.py).
memory.history: its earlier wordings, oldest first; meta of a chunk: its heading, page, line and part.
link: the memories that a derived one was made from. scope: a user's, a role's or a thread's; null: everybody's.
spending: what a caller (a digest) has used up of its limits in window "slot" and the one before; open: per process.
receipt: what was forgotten, in numbers; `owner` and `selector` are digests, `written` the transaction that did it.
vector_place: a place outside Postgres where a collection's vectors are searched, filled up to item "filled", then
told changes up to transaction "written" and "log_id"; vector_log: the items whose vectors changed, and in which
transaction, noted by triggers on memory.
thread.state: the graph's values at the end of the last run, as clients see them. run.work: what a run of the
protocol was asked for, null for a turn of another door; run.stop: who runs it shall stop, and how; run.watched:
another process listens, so its events are logged and its end is notified.
memory.seq: the place within session_id, a stretch of conversation; thread.session_seq counts it.
"""

from typing import Any

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "agentflow"
metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_ix",
        "uq": "%(table_name)s_%(column_0_N_name)s_uq",
        "ck": "%(table_name)s_%(constraint_name)s_ck",
        "fk": "%(table_name)s_%(column_0_N_name)s_fk",
        "pk": "%(table_name)s_pk",
    },
)
session_seq = Sequence("session_seq", metadata=metadata)
memory_id_seq = Sequence("memory_id_seq", metadata=metadata)


def _tenant() -> Column[int]:
    return Column("tenant", Integer, nullable=False, server_default=text("0"))


def _user() -> Column[str]:
    """Whose row it is; a statement that names its owner need not say so again."""
    return Column("user_ref", Text, nullable=False, server_default=text("agentflow.user_ref()"))


def _meta() -> Column[Any]:
    return Column("meta", JSONB, nullable=False, server_default=text("'{}'"))


def _at(name: str) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


thread = Table(
    "thread",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("user_ref", Text, nullable=False),
    Column("client_ref", Text),
    Column("title", Text),
    Column("role_name", Text),
    Column("pinned_role", Text),
    Column("last_seq", Integer, nullable=False, server_default=text("0")),
    Column("session_id", BigInteger, nullable=False, server_default=session_seq.next_value()),
    Column("session_seq", Integer, nullable=False, server_default=text("0")),
    _meta(),
    _at("created_at"),
    _at("updated_at"),
    Column("status", Text, nullable=False, server_default=text("'idle'")),
    Column("state", JSONB(none_as_null=True)),
    Column("interrupts", JSONB, nullable=False, server_default=text("'{}'")),
    Column("error", JSONB(none_as_null=True)),
    Column("state_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    Column("on_expiry", Text),
    Column("watched_until", DateTime(timezone=True)),
)
Index("thread_expires_ix", thread.c.expires_at, postgresql_where=thread.c.expires_at.is_not(None))
Index("thread_meta_ix", thread.c.meta, postgresql_using="gin", postgresql_ops={"meta": "jsonb_path_ops"})
Index(
    "thread_client_uq",
    thread.c.tenant,
    thread.c.client_ref,
    unique=True,
    postgresql_where=thread.c.client_ref.is_not(None),
)
Index("thread_user_ix", thread.c.tenant, thread.c.user_ref)

run = Table(
    "run",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    _user(),
    Column("thread_id", Uuid, ForeignKey("agentflow.thread.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("graph", Text, nullable=False, server_default=text("'agent'")),
    Column("kind", SmallInteger, nullable=False, server_default=text("1")),
    Column("status", SmallInteger, nullable=False, server_default=text("0")),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("idem_key", Text),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("wanted_role", Text),
    Column("role_name", Text),
    Column("adapter", Text),
    Column("worker", Text),
    Column("lease_until", DateTime(timezone=True)),
    Column("given", JSONB(none_as_null=True)),
    Column("exchange", LargeBinary),
    Column("webhook", Text),
    Column("error", JSONB(none_as_null=True)),
    _at("started_at"),
    Column("ended_at", DateTime(timezone=True)),
    Column("assistant_id", Uuid),
    Column("work", JSONB(none_as_null=True)),
    _meta(),
    Column("multitask", Text, nullable=False, server_default=text("'enqueue'")),
    Column("start_after", DateTime(timezone=True)),
    Column("stop", Text),
    Column("watched", Boolean, nullable=False, server_default=text("false")),
    Column("follows", Integer),
    Column("details", LargeBinary),
    Column("recalled", ARRAY(BigInteger)),
    UniqueConstraint("thread_id", "seq"),
)
Index("run_branch_ix", run.c.thread_id, run.c.seq, postgresql_where=run.c.follows.is_not(None))
Index("run_live_ix", run.c.lease_until, postgresql_where=run.c.status.in_((0, 1)))
Index("run_open_ix", run.c.thread_id, run.c.seq, postgresql_where=run.c.status.in_((0, 1)))
Index("run_exchange_ix", run.c.tenant, run.c.exchange, postgresql_where=run.c.exchange.is_not(None))
Index(
    "run_idem_uq",
    run.c.tenant,
    run.c.user_ref,
    run.c.idem_key,
    unique=True,
    postgresql_where=run.c.idem_key.is_not(None),
)

message = Table(
    "message",
    metadata,
    Column("thread_id", Uuid, ForeignKey("agentflow.thread.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("id", Uuid, nullable=False, unique=True),
    _tenant(),
    _user(),
    Column("run_id", Uuid, nullable=False),
    Column("role", SmallInteger, nullable=False),
    Column("status", SmallInteger, nullable=False, server_default=text("1")),
    Column("content", Text, nullable=False),
    Column("role_name", Text),
    Column("adapter", Text),
    Column("tokens_in", Integer),
    Column("tokens_out", Integer),
    Column("latency_ms", Integer),
    _meta(),
    _at("created_at"),
    PrimaryKeyConstraint("thread_id", "seq"),
)
Index("message_run_ix", message.c.run_id)

collection = Table(
    "collection",
    metadata,
    Column("id", Integer, primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("kind", SmallInteger, nullable=False, server_default=text("1")),
    Column("backend", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("embed_model", Text, nullable=False),
    _meta(),
    _at("created_at"),
    UniqueConstraint("tenant", "name"),
)

scope = Table(
    "scope",
    metadata,
    Column("id", Integer, primary_key=True),
    _tenant(),
    Column(
        "collection_id", Integer, ForeignKey("agentflow.collection.id", ondelete="CASCADE"), nullable=False
    ),
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
    _tenant(),
    Column("scope_id", Integer, nullable=False),
    Column("kind", SmallInteger, nullable=False, server_default=text("1")),
    Column("trust", SmallInteger, nullable=False),
    Column("session_id", BigInteger, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("speaker", Text, nullable=False),
    Column("said_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("content", Text, nullable=False),
    Column("embedding", HALFVEC),
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
    _meta(),
    _at("created_at"),
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
    _tenant(),
    Column(
        "collection_id", Integer, ForeignKey("agentflow.collection.id", ondelete="CASCADE"), nullable=False
    ),
    Column("scope_id", Integer, ForeignKey("agentflow.scope.id", ondelete="CASCADE"), nullable=False),
    Column("user_ref", Text),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False, server_default=text("0")),
    Column("session_id", BigInteger, nullable=False, server_default=session_seq.next_value()),
    _at("created_at"),
    _at("updated_at"),
    UniqueConstraint("scope_id", "name"),
)

link = Table(
    "link",
    metadata,
    _tenant(),
    Column("item_id", BigInteger, nullable=False),
    Column("source_id", BigInteger, nullable=False),
    PrimaryKeyConstraint("item_id", "source_id"),
)
Index("link_source_ix", link.c.source_id)

receipt = Table(
    "receipt",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("owner", LargeBinary, nullable=False),
    Column("selected_by", Text, nullable=False),
    Column("selector", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("counts", JSONB, nullable=False),
    Column("written", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
    _at("created_at"),
)
Index("receipt_owner_ix", receipt.c.tenant, receipt.c.owner, receipt.c.created_at)

posting = Table(
    "posting",
    metadata,
    Column("scope_id", Integer, nullable=False),
    Column("term", Integer, nullable=False),
    Column("block", Integer, nullable=False),
    Column("df", Integer, nullable=False),
    Column("entries", ARRAY(BigInteger), nullable=False),
    PrimaryKeyConstraint("scope_id", "term", "block"),
    postgresql_with={"fillfactor": 80},
)

word = Table(
    "word",
    metadata,
    _tenant(),
    Column(
        "collection_id", Integer, ForeignKey("agentflow.collection.id", ondelete="CASCADE"), nullable=False
    ),
    Column("term", Integer, nullable=False),
    Column("word", Text, nullable=False),
    Column("embedding", LargeBinary),
    Column("nearest", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    PrimaryKeyConstraint("collection_id", "term"),
    postgresql_with={"fillfactor": 80},
)
Index("word_owed_ix", word.c.collection_id, postgresql_where=word.c.embedding.is_(None))

vector_place = Table(
    "vector_place",
    metadata,
    Column(
        "collection_id", Integer, ForeignKey("agentflow.collection.id", ondelete="CASCADE"), nullable=False
    ),
    Column("place", Text, nullable=False),
    _tenant(),
    Column("lasting", Boolean, nullable=False),
    Column("serving", Boolean, nullable=False, server_default=text("false")),
    Column("filled", BigInteger, nullable=False, server_default=text("0")),
    Column("born", BigInteger),
    Column("written", BigInteger, nullable=False),
    Column("log_id", BigInteger, nullable=False, server_default=text("0")),
    Column("items", BigInteger, nullable=False, server_default=text("0")),
    Column("digest", LargeBinary),
    Column("worker", Text, nullable=False),
    _at("lease_until"),
    Column("last_error", Text),
    _at("created_at"),
    _at("updated_at"),
    PrimaryKeyConstraint("collection_id", "place"),
)

vector_log = Table(
    "vector_log",
    metadata,
    Column("id", BigInteger, primary_key=True),
    _tenant(),
    Column("collection_id", Integer, nullable=False),
    Column("scope_id", Integer, nullable=False),
    Column("item_id", BigInteger, nullable=False),
    Column("written", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
)
Index("vector_log_order_ix", vector_log.c.collection_id, vector_log.c.written, vector_log.c.id)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    _user(),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("disabled", Boolean, nullable=False, server_default=text("false")),
    Column("expires_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    _at("created_at"),
)
Index("api_key_name_ix", api_key.c.tenant, api_key.c.name)

spending = Table(
    "spending",
    metadata,
    Column("caller", LargeBinary, primary_key=True),
    Column("slot", BigInteger, nullable=False, server_default=text("0")),
    Column("hits", Integer, nullable=False, server_default=text("0")),
    Column("before", Integer, nullable=False, server_default=text("0")),
    Column("open", JSONB, nullable=False, server_default=text("'{}'")),
    _at("seen"),
    prefixes=["unlogged"],
    postgresql_with={"fillfactor": 50},
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, primary_key=True),
    _tenant(),
    Column("kind", Text, nullable=False),
    Column("item_id", BigInteger),
    Column("collection_id", Integer),
    Column("payload", JSONB, nullable=False, server_default=text("'{}'")),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    _at("not_before"),
    Column("last_error", Text),
    _at("created_at"),
    postgresql_with={"fillfactor": 70},
)
Index("outbox_due_ix", outbox.c.kind, outbox.c.not_before, outbox.c.id)

feedback = Table(
    "feedback",
    metadata,
    Column("id", BigInteger, primary_key=True),
    _tenant(),
    Column("run_id", Uuid, ForeignKey("agentflow.run.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("user_ref", Text, nullable=False),
    Column("said_role", Text),
    Column("role_name", Text),
    Column("content", Text, nullable=False),
    Column("status", SmallInteger, nullable=False, server_default=text("0")),
    _at("created_at"),
    _at("updated_at"),
)
Index("feedback_status_ix", feedback.c.status, feedback.c.updated_at)

run_event = Table(
    "run_event",
    metadata,
    Column("run_id", Uuid, ForeignKey("agentflow.run.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),
    _tenant(),
    Column("user_ref", Text, nullable=False, server_default=text("agentflow.user_ref()")),
    Column("name", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    _at("at"),
    PrimaryKeyConstraint("run_id", "seq"),
)
Index("run_event_at_ix", run_event.c.at)

assistant = Table(
    "assistant",
    metadata,
    _tenant(),
    Column("id", Uuid, nullable=False),
    Column("graph", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("config", JSONB, nullable=False, server_default=text("'{}'")),
    Column("context", JSONB, nullable=False, server_default=text("'{}'")),
    _meta(),
    Column("version", Integer, nullable=False, server_default=text("1")),
    _at("created_at"),
    _at("updated_at"),
    PrimaryKeyConstraint("tenant", "id"),
)

assistant_version = Table(
    "assistant_version",
    metadata,
    _tenant(),
    Column("assistant_id", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("graph", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("config", JSONB, nullable=False, server_default=text("'{}'")),
    Column("context", JSONB, nullable=False, server_default=text("'{}'")),
    _meta(),
    _at("created_at"),
    PrimaryKeyConstraint("tenant", "assistant_id", "version"),
    ForeignKeyConstraint(
        ["tenant", "assistant_id"],
        ["agentflow.assistant.tenant", "agentflow.assistant.id"],
        ondelete="CASCADE",
    ),
)

cron = Table(
    "cron",
    metadata,
    Column("id", Uuid, primary_key=True),
    _tenant(),
    Column("user_ref", Text, nullable=False),
    Column("assistant_id", Uuid, nullable=False),
    Column("thread_id", Uuid, ForeignKey("agentflow.thread.id", ondelete="CASCADE")),
    Column("schedule", Text, nullable=False),
    Column("timezone", Text, nullable=False, server_default=text("'UTC'")),
    Column("work", JSONB, nullable=False, server_default=text("'{}'")),
    _meta(),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("end_at", DateTime(timezone=True)),
    Column("next_at", DateTime(timezone=True)),
    _at("created_at"),
    _at("updated_at"),
)
Index("cron_user_ix", cron.c.tenant, cron.c.user_ref, cron.c.created_at)
