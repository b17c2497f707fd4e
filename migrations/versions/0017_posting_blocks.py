"""Postings in blocks of a term's memories, eight bytes each, and only for scopes too large to be read whole."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op

from agentflow.records.ownership import expose, protect

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

WHOLE, SEALED = 500, 128

BLOCKS = """
create table agentflow.posting (
  scope_id int not null, term int not null, block int not null, df int not null, entries bigint[] not null,
  constraint posting_pk primary key (scope_id, term, block)) with (fillfactor = 80)
"""
# The last block of a term is the open one, number 0.
CONVERT = f"""
insert into agentflow.posting (scope_id, term, block, df, entries)
select scope_id, term, case when last then 0 else number + 1 end, case when last then df else 0 end,
       array_agg((item_id << 24) + (least(tf, 255)::bigint << 16) + dl order by item_id)
from (select p.*, count(*) over of as df, (row_number() over of_in_order - 1) / {SEALED} as number,
             (row_number() over of_in_order - 1) / {SEALED} = (count(*) over of - 1) / {SEALED} as last
      from agentflow.former_posting p join agentflow.scope s on s.id = p.scope_id and s.posted
      window of as (partition by p.scope_id, p.term),
             of_in_order as (partition by p.scope_id, p.term order by p.item_id)) p
group by scope_id, term, number, last, df
"""
# bow holds (term int32, count int16) pairs, little-endian.
ROWS = """
create table agentflow.posting as
select m.scope_id, get_byte(m.bow, at) | (get_byte(m.bow, at + 1) << 8) | (get_byte(m.bow, at + 2) << 16)
                   | (get_byte(m.bow, at + 3) << 24) as term,
       m.id as item_id, (get_byte(m.bow, at + 4) | (get_byte(m.bow, at + 5) << 8))::smallint as tf,
       m.doc_len::smallint as dl
from agentflow.memory m cross join generate_series(0, octet_length(m.bow) - 6, 6) at where m.bow is not null
"""
COUNTS = """
create table agentflow.term_stat with (fillfactor = 70) as
select scope_id, term, count(*)::int as df from agentflow.posting group by scope_id, term
"""
REQUIRED = {"posting": ("scope_id", "term", "item_id", "tf", "dl"), "term_stat": ("scope_id", "term", "df")}


def upgrade() -> None:
    op.execute("alter table agentflow.scope add posted boolean not null default false")
    with opened("scope", "posting"):
        op.execute(f"update agentflow.scope set posted = true where n_docs > {WHOLE}")
        op.execute("alter table agentflow.posting rename to former_posting")
        op.execute("alter table agentflow.former_posting rename constraint posting_pk to former_posting_pk")
        op.execute(BLOCKS)
        op.execute(CONVERT)
        op.execute("drop table agentflow.former_posting")
    op.execute("drop table agentflow.term_stat")
    protect(op.execute, "posting", "scope")


def downgrade() -> None:
    expose(op.execute, "posting")
    op.execute("drop table agentflow.posting")
    with opened("memory"):
        op.execute(ROWS)
    op.execute(COUNTS)
    for table, columns in REQUIRED.items():
        for column in columns:
            op.execute(f"alter table agentflow.{table} alter {column} set not null")
    op.execute(
        "alter table agentflow.posting add constraint posting_pk primary key (scope_id, term, item_id) include (tf, dl)"
    )
    op.execute("alter table agentflow.term_stat add constraint term_stat_pk primary key (scope_id, term)")
    for table in REQUIRED:
        protect(op.execute, table, "scope")
    op.execute("alter table agentflow.scope drop column posted")
    with opened("outbox"):
        op.execute("delete from agentflow.outbox where kind = 'post'")


@contextmanager
def opened(*tables: str) -> Iterator[None]:
    """The tables' rows are there for their owner too."""
    for table in tables:
        op.execute(f"alter table agentflow.{table} no force row level security")
    yield
    for table in tables:
        op.execute(f"alter table if exists agentflow.{table} force row level security")
