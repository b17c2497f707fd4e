"""What was said, and the turns in which it was.

Codes: message.role 1 system 2 user 3 assistant 4 tool. message.status 1 complete 2 partial.
run.status 0 queued 1 running 2 done 3 failed 4 cancelled. run.kind 1 turn 2 utility call 3 job
4 step (ended in tool calls, seen by no later turn) 5 turn made elsewhere or copied from another branch.
run.details: the result without the words that message and memory hold, packed (records/details.py); run.recalled:
the memories in it. run.given: what a stateless client sent beside the message, until the run ends; run.exchange: finds
it again.
run.webhook: posted to when the run ends; the trigger run_callback then asks for a job, as for work's "webhook".
run.work: what a run of the protocol was asked for, null for a turn of another door; run.stop: who runs it shall stop,
and how; run.watched: another process listens, so its events are logged and its end is notified.
thread.state: the graph's values at the end of the last run, as clients see them. thread.session_seq: the last
memory.seq within thread.session_id.
feedback.status 0 waiting 1 accepted 2 rejected; said_role is what the turn had, role_name what it should have had.
"""

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
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from agentflow.tables.schema import at, meta, metadata, session_seq, tenant, user_ref

thread = Table(
    "thread",
    metadata,
    Column("id", Uuid, primary_key=True),
    tenant(),
    Column("user_ref", Text, nullable=False),
    Column("client_ref", Text),
    Column("title", Text),
    Column("role_name", Text),
    Column("pinned_role", Text),
    Column("last_seq", Integer, nullable=False, server_default=text("0")),
    Column("session_id", BigInteger, nullable=False, server_default=session_seq.next_value()),
    Column("session_seq", Integer, nullable=False, server_default=text("0")),
    meta(),
    at("created_at"),
    at("updated_at"),
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
    tenant(),
    user_ref(),
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
    at("started_at"),
    Column("ended_at", DateTime(timezone=True)),
    Column("assistant_id", Uuid),
    Column("work", JSONB(none_as_null=True)),
    meta(),
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
    Column("id", Uuid, nullable=False),
    tenant(),
    user_ref(),
    Column("run_id", Uuid, nullable=False),
    Column("role", SmallInteger, nullable=False),
    Column("status", SmallInteger, nullable=False, server_default=text("1")),
    Column("content", Text, nullable=False),
    Column("role_name", Text),
    Column("adapter", Text),
    Column("tokens_in", Integer),
    Column("tokens_out", Integer),
    Column("latency_ms", Integer),
    meta(),
    at("created_at"),
    PrimaryKeyConstraint("thread_id", "seq"),
)
Index("message_run_ix", message.c.run_id)

run_event = Table(
    "run_event",
    metadata,
    Column("run_id", Uuid, ForeignKey("agentflow.run.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),
    tenant(),
    user_ref(),
    Column("name", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    at("at"),
    PrimaryKeyConstraint("run_id", "seq"),
)
Index("run_event_at_ix", run_event.c.at)

feedback = Table(
    "feedback",
    metadata,
    Column("id", BigInteger, primary_key=True),
    tenant(),
    Column("run_id", Uuid, ForeignKey("agentflow.run.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("user_ref", Text, nullable=False),
    Column("said_role", Text),
    Column("role_name", Text),
    Column("content", Text, nullable=False),
    Column("status", SmallInteger, nullable=False, server_default=text("0")),
    at("created_at"),
    at("updated_at"),
)
Index("feedback_status_ix", feedback.c.status, feedback.c.updated_at)
