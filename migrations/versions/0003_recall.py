"""Words of memories: postings, term statistics, and what scopes and threads count."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "posting",
        sa.Column("scope_id", sa.Integer(), nullable=False),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("tf", sa.SmallInteger(), nullable=False),
        sa.Column("dl", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "scope_id", "term", "item_id", name=op.f("posting_pk"), postgresql_include=["tf", "dl"]
        ),
        schema="agentflow",
    )
    op.create_table(
        "term_stat",
        sa.Column("scope_id", sa.Integer(), nullable=False),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("df", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("scope_id", "term", name=op.f("term_stat_pk"), postgresql_include=["df"]),
        schema="agentflow",
    )
    for table in ("term_stat", "scope", "outbox"):  # rows that are updated in place, or come and go
        op.execute(f"alter table agentflow.{table} set (fillfactor = 70)")
    for column in (
        sa.Column("n_docs", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sum_len", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("langs", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    ):
        op.add_column("scope", column, schema="agentflow")
    for column in (
        sa.Column("lang", sa.Text(), server_default=sa.text("'english'"), nullable=False),
        sa.Column("bow", sa.LargeBinary(), nullable=True),
        sa.Column("doc_len", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("is_question", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("n_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False),
    ):
        op.add_column("memory", column, schema="agentflow")
    op.add_column(
        "thread",
        sa.Column("session_seq", sa.Integer(), server_default=sa.text("0"), nullable=False),
        schema="agentflow",
    )
    op.execute("update agentflow.thread set session_seq = last_seq")
    op.execute(
        "insert into agentflow.outbox (tenant, kind, item_id, collection_id) "
        "select tenant, 'index', id, collection_id from agentflow.memory"
    )


def downgrade() -> None:
    op.execute("delete from agentflow.outbox where kind = 'index'")
    op.drop_column("thread", "session_seq", schema="agentflow")
    for column in ("n_tokens", "is_question", "doc_len", "bow", "lang"):
        op.drop_column("memory", column, schema="agentflow")
    for column in ("langs", "sum_len", "n_docs"):
        op.drop_column("scope", column, schema="agentflow")
    op.drop_table("term_stat", schema="agentflow")
    op.drop_table("posting", schema="agentflow")
