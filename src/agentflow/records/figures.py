"""Plain figures of what is in the database, for `/metrics` and `agentflow doctor`."""

from dataclasses import dataclass

from agentflow.records.connections import Connections

RUNS = """
select case status when 0 then 'queued' else 'running' end, count(*),
       extract(epoch from now() - min(started_at))::float8
from run where status in (0, 1) group by status
"""
OUTBOX = (
    "select kind, count(*), extract(epoch from now() - min(created_at))::float8 from outbox group by kind"
)
CHECKPOINTS = """
select coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8
from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'langgraph' and c.relkind = 'r'
"""

Figure = dict[tuple[str, ...], float]


@dataclass(frozen=True)
class Figures:
    """Reads them across tenants."""

    connections: Connections

    async def now(self) -> dict[str, Figure]:
        """By the field of Metrics they belong to, then by labels. Raises DatabaseDown."""
        async with self.connections.background() as connection:
            runs = await (await connection.execute(RUNS)).fetchall()
            owed = await (await connection.execute(OUTBOX)).fetchall()
            size = await (await connection.execute(CHECKPOINTS)).fetchone()
        return {
            "queue": {("queued",): 0, ("running",): 0} | {(status,): count for status, count, _ in runs},
            "queue_age": {(status,): age for status, _, age in runs},
            "outbox": {(kind,): count for kind, count, _ in owed},
            "outbox_age": {(kind,): age for kind, _, age in owed},
            "checkpoint_bytes": {(): size[0] if size else 0.0},
        }
