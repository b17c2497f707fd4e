"""Who listens to a thread: its runs are then logged wherever they run, and each new one is told of."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentflow.protocols import Owner
from agentflow.records.connections import Connections
from agentflow.turn import Json

LISTENED = 120.0
"""Seconds for which a thread counts as listened to after the last listener said so."""

LISTEN = """
update thread set watched_until = now() + %(seconds)s * interval '1 second'
where id = %(thread)s and tenant = %(tenant)s and user_ref = %(user)s
"""
# A statement of its own after that: who accepts a run from then on knows, and what was accepted before is seen here.
OPEN = """
with w as (
  update run set watched = true where thread_id = %(thread)s and tenant = %(tenant)s and status in (0, 1)
    and work is not null and not watched
  returning id)
select pg_notify('agentflow', 'watch ' || w.id) from w
"""
# An answer may be any JSON; only ids of interrupts are names of an object.
_RUN = """r.id, r.thread_id, r.seq, r.graph, r.status, r.error,
  case when jsonb_typeof(r.work -> 'command' -> 'resume') = 'object'
    then array(select one from jsonb_object_keys(r.work -> 'command' -> 'resume') one where one ~ '^[0-9a-f]{32}$')
    else '{}' end"""
# A run that begins later has no place yet.
FROM = f"""
select {_RUN} from run r join thread t on t.id = r.thread_id
where r.thread_id = %(thread)s and t.tenant = %(tenant)s and t.user_ref = %(user)s and r.seq >= %(place)s
  and r.work is not null and (r.status <> 0 or r.start_after is null)
order by r.seq limit 100
"""  # noqa: S608 - constants
ONE = f"select {_RUN} from run r where r.id = %(run)s and r.tenant = %(tenant)s"  # noqa: S608 - constants
PLACES = """
select t.last_seq + 1, min(r.seq) filter (where r.status in (0, 1)), max(r.seq)
from thread t left join run r on r.thread_id = t.id and r.work is not null
  and (r.status <> 0 or r.start_after is null)
where t.id = %(thread)s and t.tenant = %(tenant)s and t.user_ref = %(user)s group by t.id
"""


@dataclass(frozen=True)
class RunInThread:
    """A run at its place in its thread; `error` as the ledger has it; `answers` names the interrupts it answers."""

    run_id: str
    thread_id: str
    place: int
    graph: str
    status: int
    error: Json | None = None
    answers: Sequence[str] = ()

    @property
    def going(self) -> bool:
        return self.status in (0, 1)


@dataclass(frozen=True)
class Places:
    """Where a thread's runs stand: the next one's place, the first open one's, and the last one's."""

    coming: int
    open: int | None
    last: int | None


@dataclass(frozen=True)
class Listeners:
    """The thread and run tables, for who listens to a thread. Threads of others are as unknown as those of nobody."""

    connections: Connections

    async def listen(self, owner: Owner, thread_id: str, *, again: bool = False) -> bool:
        """From now on the thread's runs are logged and told of, for LISTENED seconds; False: there is no such thread.

        `again`: it has been listened to until now, so its open runs know already.
        """
        parameters = {**_named(owner, thread_id), "seconds": LISTENED}
        async with self.connections.use(owner) as connection:
            if (await connection.execute(LISTEN, parameters)).rowcount != 1:
                return False
            if not again:
                await connection.execute(OPEN, parameters)
        return True

    async def places(self, owner: Owner, thread_id: str) -> Places:
        """Where to begin."""
        async with self.connections.use(owner) as connection:
            row = await (await connection.execute(PLACES, _named(owner, thread_id))).fetchone()
        return Places(*(row or (0, None, None)))

    async def runs(self, owner: Owner, thread_id: str, place: int) -> list[RunInThread]:
        """The protocol's runs from a place on, in order; at most 100."""
        parameters = {**_named(owner, thread_id), "place": place}
        async with self.connections.use(owner) as connection:
            rows = await (await connection.execute(FROM.encode(), parameters)).fetchall()
        return [RunInThread(str(run), str(thread), *rest) for run, thread, *rest in rows]

    async def now(self, owner: Owner, run_id: str) -> RunInThread | None:
        """The run as it is now; None where it is gone."""
        parameters = {"run": run_id, "tenant": owner.tenant}
        async with self.connections.use(owner) as connection:
            row = await (await connection.execute(ONE.encode(), parameters)).fetchone()
        return None if row is None else RunInThread(str(row[0]), str(row[1]), *row[2:])


def _named(owner: Owner, thread_id: str) -> Json:
    return {"tenant": owner.tenant, "user": owner.user, "thread": thread_id}
