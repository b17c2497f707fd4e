"""A word has one row: its vector in two bits a dimension, and the words near it. Vectors are owed once more."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op

from agentflow.records.ownership import protect

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# An entry: how near (16 bits, of 65535), and the term as an unsigned number.
PACK = """
update agentflow.word w set nearest = r.nearest
from (select collection_id, term, (array_agg(entry order by entry desc))[1:8] as nearest
      from (select collection_id, term,
                   (round(least(greatest(nearness, 0), 1) * 65535)::bigint << 32) + near + 2147483648 as entry
            from agentflow.related) e
      group by collection_id, term) r
where w.collection_id = r.collection_id and w.term = r.term
"""
RELATED = """
create table agentflow.related (
  tenant int not null default 0,
  collection_id int not null constraint related_collection_id_fk references agentflow.collection on delete cascade,
  term int not null, near int not null, nearness real not null)
"""
UNPACK = """
insert into agentflow.related (tenant, collection_id, term, near, nearness)
select tenant, collection_id, term, ((entry & 4294967295) - 2147483648)::int, max((entry >> 32) / 65535.0)
from agentflow.word cross join unnest(nearest) entry group by 1, 2, 3, 4
"""
KEY = """
alter table agentflow.related
  add constraint related_pk primary key (collection_id, term, near) include (nearness)
"""


def upgrade() -> None:
    op.execute("alter table agentflow.word add nearest bigint[] not null default '{}'")
    with opened("word", "related"):
        op.execute(PACK)
        op.execute("drop table agentflow.related")
    op.execute("alter table agentflow.word alter embedding type bytea using null, set (fillfactor = 80)")


def downgrade() -> None:
    op.execute(RELATED)
    with opened("word", "collection"):
        op.execute(UNPACK)
    op.execute(KEY)
    protect(op.execute, "related", "tenant")
    op.execute("alter table agentflow.word alter embedding type halfvec using null")
    op.execute(
        "alter table agentflow.word alter embedding set storage plain, drop column nearest, reset (fillfactor)"
    )


@contextmanager
def opened(*tables: str) -> Iterator[None]:
    """The tables' rows are there for their owner too."""
    for table in tables:
        op.execute(f"alter table agentflow.{table} no force row level security")
    yield
    for table in tables:
        op.execute(f"alter table if exists agentflow.{table} force row level security")
