"""What memories are found by: words, postings, vectors elsewhere; and what they are still owed of it.

posting: in which of a scope's items a term occurs, and in block 0 in how many.
word: the words of a collection; embedding: their vectors (retrieval/sketch.py), null while owed; nearest: the words
near them (records/memory/vocabulary.py).
vector_place: a place outside Postgres where a collection's vectors are searched, filled up to item "filled", then
told changes up to transaction "written" and "log_id"; vector_log: the items whose vectors changed, and in which
transaction, noted by triggers on memory.
outbox.kind "embed" a vector is owed, "index" its words are.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from agentflow.tables.schema import at, collection_id, metadata, tenant

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
    tenant(),
    collection_id(),
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
    collection_id(),
    Column("place", Text, nullable=False),
    tenant(),
    Column("lasting", Boolean, nullable=False),
    Column("serving", Boolean, nullable=False, server_default=text("false")),
    Column("filled", BigInteger, nullable=False, server_default=text("0")),
    Column("born", BigInteger),
    Column("written", BigInteger, nullable=False),
    Column("log_id", BigInteger, nullable=False, server_default=text("0")),
    Column("items", BigInteger, nullable=False, server_default=text("0")),
    Column("digest", LargeBinary),
    Column("worker", Text, nullable=False),
    at("lease_until"),
    Column("last_error", Text),
    at("created_at"),
    at("updated_at"),
    PrimaryKeyConstraint("collection_id", "place"),
)

vector_log = Table(
    "vector_log",
    metadata,
    Column("id", BigInteger, primary_key=True),
    tenant(),
    Column("collection_id", Integer, nullable=False),
    Column("scope_id", Integer, nullable=False),
    Column("item_id", BigInteger, nullable=False),
    Column("written", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
)
Index("vector_log_order_ix", vector_log.c.collection_id, vector_log.c.written, vector_log.c.id)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, primary_key=True),
    tenant(),
    Column("kind", Text, nullable=False),
    Column("item_id", BigInteger),
    Column("collection_id", Integer),
    Column("payload", JSONB, nullable=False, server_default=text("'{}'")),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    at("not_before"),
    Column("last_error", Text),
    at("created_at"),
    postgresql_with={"fillfactor": 70},
)
Index("outbox_due_ix", outbox.c.kind, outbox.c.not_before, outbox.c.id)
