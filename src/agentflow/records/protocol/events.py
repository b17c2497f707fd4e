"""The log of runs that can be resumed or are watched from another process: bounded, kept for a day."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentflow.protocols import Lease, Owner
from agentflow.records.connections import Connections

KEPT = 24 * 3600
"""Seconds."""

# Nothing is written by a stale attempt; what an earlier attempt wrote under a number stays. Readers elsewhere are told.
APPEND = """
with f as (select id, tenant, thread_id, watched from run
           where id = %(run)s and attempt = %(attempt)s and status in (1, 2)),
e as (
  insert into run_event (run_id, seq, tenant, name, data, at)
  select f.id, one.seq, f.tenant, one.name, one.data, to_timestamp(one.at / 1000.0)
  from f, unnest(%(seqs)s::int[], %(names)s::text[], %(datas)s::bytea[], %(ats)s::float8[]) one (seq, name, data, at)
  on conflict (run_id, seq) do nothing)
select pg_notify('agentflow', 'run ' || f.id) from f
"""
READ = """
select seq, (extract(epoch from at) * 1000)::int8, name, data from run_event
where run_id = %(run)s and seq > %(after)s order by seq limit %(limit)s
"""
FORGET = """
delete from run_event where ctid in (
  select ctid from run_event where at < now() - %(kept)s * interval '1 second' limit 10000)
"""
Row = tuple[int, int, str, bytes]
"""seq, milliseconds since 1970, name, JSON."""


@dataclass(frozen=True)
class EventLog:
    """Events in Postgres."""

    connections: Connections

    async def append(self, lease: Lease, events: Sequence[Row]) -> None:
        """Keep them and tell who reads elsewhere; a stale attempt keeps nothing."""
        parameters = {
            "run": lease.run_id,
            "attempt": lease.attempt,
            "seqs": [one[0] for one in events],
            "ats": [float(one[1]) for one in events],
            "names": [one[2] for one in events],
            "datas": [one[3] for one in events],
        }
        async with self.connections.use(lease.owner) as connection:
            await connection.execute(APPEND, parameters)

    async def read(self, owner: Owner, run_id: str, after: int, *, limit: int = 500) -> list[Row]:
        """Events with higher numbers, in order."""
        parameters = {"run": run_id, "after": after, "limit": limit}
        async with self.connections.use(owner) as connection:
            rows = await (await connection.execute(READ, parameters)).fetchall()
        return [(seq, at, name, bytes(data)) for seq, at, name, data in rows]

    async def last(self, owner: Owner, run_id: str) -> int:
        """The highest number logged; 0 for none."""
        async with self.connections.use(owner) as connection:
            statement = "select coalesce(max(seq), 0) from run_event where run_id = %s"
            row = await (await connection.execute(statement, (run_id,))).fetchone()
        return int(row[0]) if row else 0

    async def forget(self) -> int:
        """Remove what is older than a day; how many."""
        async with self.connections.background() as connection:
            return (await connection.execute(FORGET, {"kept": KEPT})).rowcount
