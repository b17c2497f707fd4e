"""Who may ask, and how much; what was asked for once already.

spending: what a caller (a digest) has used up of its limits in window "slot" and the one before; open: per process.
claim: a request with an idempotency key for which no run stands; status, headers and body once it is answered.
fingerprint: sha256 over method, address and body; holder: who works on it, and at: when that was heard of last.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from agentflow.tables.schema import at, metadata, tenant, user_ref

api_key = Table(
    "api_key",
    metadata,
    Column("id", Uuid, primary_key=True),
    tenant(),
    user_ref(),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("disabled", Boolean, nullable=False, server_default=text("false")),
    Column("expires_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    at("created_at"),
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
    at("seen"),
    prefixes=["unlogged"],
    postgresql_with={"fillfactor": 50},
)

claim = Table(
    "claim",
    metadata,
    tenant(),
    user_ref(),
    Column("idem_key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("holder", Uuid, nullable=False),
    Column("status", SmallInteger),
    Column("headers", JSONB),
    Column("body", LargeBinary),
    at("at"),
    PrimaryKeyConstraint("tenant", "user_ref", "idem_key"),
)
