"""What goes by itself: memories past their time, and checkpoints that nobody will go back to.

Expired memories are found by nobody from the moment they expire; the sweep then forgets them as their owner would.
Of every thread the latest checkpoint stays, and those younger than `checkpoints`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agentflow.records.connections import Connections
from agentflow.records.memory.forget import Forgetting, Selector
from agentflow.records.memory.rights import Owner
from agentflow.records.memory.traces import Traces
from agentflow.settings import Collection

BATCH = 500

AGED = """
update memory m set expires_at = m.created_at + %(ttl)s * interval '1 second'
from collection c
where c.id = m.collection_id and c.name = %(name)s and m.expires_at is null and not m.pinned
  and m.created_at < now() - %(ttl)s * interval '1 second'
"""
EXPIRED = "select distinct tenant from memory where expires_at < now() and not pinned"
AGAIN = """
delete from outbox where kind = 'forget' and not_before <= now() returning tenant, payload -> 'ids'
"""
HOLDS = "select to_regclass('langgraph.checkpoints') is not null"
# Blobs and writes go with the last checkpoint that names them; a running turn names none of these any more.
PRUNE = """
with old as (
  select c.thread_id, c.checkpoint_ns, c.checkpoint_id from langgraph.checkpoints c
  where (c.checkpoint ->> 'ts')::timestamptz < now() - %(keep)s * interval '1 second'
    and c.checkpoint_id < (select max(l.checkpoint_id) from langgraph.checkpoints l
                           where l.thread_id = c.thread_id and l.checkpoint_ns = c.checkpoint_ns)
  order by c.thread_id, c.checkpoint_ns, c.checkpoint_id limit %(limit)s),
gone as (
  delete from langgraph.checkpoints c using old
  where c.thread_id = old.thread_id and c.checkpoint_ns = old.checkpoint_ns and c.checkpoint_id = old.checkpoint_id
  returning c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.checkpoint -> 'channel_versions' as versions),
w as (
  delete from langgraph.checkpoint_writes w using gone
  where w.thread_id = gone.thread_id and w.checkpoint_ns = gone.checkpoint_ns
    and w.checkpoint_id = gone.checkpoint_id),
b as (
  delete from langgraph.checkpoint_blobs b
  using (select distinct g.thread_id, g.checkpoint_ns, v.key, v.value
         from gone g cross join lateral jsonb_each_text(g.versions) v) u
  where b.thread_id = u.thread_id and b.checkpoint_ns = u.checkpoint_ns and b.channel = u.key and b.version = u.value
    and not exists (
      select from langgraph.checkpoints c
      where c.thread_id = u.thread_id and c.checkpoint_ns = u.checkpoint_ns
        and c.checkpoint -> 'channel_versions' ->> u.key = u.value
        and not exists (select from old where old.thread_id = c.thread_id
                        and old.checkpoint_ns = c.checkpoint_ns and old.checkpoint_id = c.checkpoint_id)))
select count(*) from gone
"""


@dataclass(frozen=True)
class Retention:
    """Sweeps all tenants; `checkpoints` in seconds, None keeps them all. Raises DatabaseDown."""

    connections: Connections
    forgetting: Forgetting
    collections: Mapping[str, Collection]
    checkpoints: float | None

    async def sweep(self) -> dict[str, int]:
        """One round; returns how many memories and checkpoints went."""
        await self._late_copies()
        return {"memories": await self._expired(), "checkpoints": await self._old_checkpoints()}

    async def _late_copies(self) -> None:
        """Forgotten memories leave the answers of turns that had recalled them and ended later."""
        async with self.connections.background() as connection, connection.transaction():
            for tenant, ids in await (await connection.execute(AGAIN)).fetchall():
                await Traces(connection, tenant).redacted([], ids)

    async def _expired(self) -> int:
        async with self.connections.background() as connection:
            for name, collection in self.collections.items():
                if collection.ttl is not None:
                    await connection.execute(AGED, {"name": name, "ttl": collection.ttl})
            tenants = await (await connection.execute(EXPIRED)).fetchall()
        gone = 0
        for (tenant,) in tenants:
            receipt = await self.forgetting.forget(Owner(tenant, "", shared=True), Selector("expired"))
            gone += receipt["counts"]["memories"]
        return gone

    async def _old_checkpoints(self) -> int:
        if self.checkpoints is None:
            return 0
        gone = 0
        async with self.connections.background() as connection:
            found = await (await connection.execute(HOLDS)).fetchone()
            while found and found[0]:
                row = await (
                    await connection.execute(PRUNE, {"keep": self.checkpoints, "limit": BATCH})
                ).fetchone()
                gone += row[0] if row else 0
                if row is None or row[0] < BATCH:
                    break
        return gone
