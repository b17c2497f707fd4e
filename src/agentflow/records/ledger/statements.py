"""The ledger's statements: each is one round trip, and one commit."""

from agentflow.records.branches import PARTS as PARTS_OF
from agentflow.records.connections import UNUSED
from agentflow.records.details import TOLD
from agentflow.records.memory.postings import WORDS
from agentflow.records.memory.writing import INSERT

# The thread (made if new; untouched if it is somebody else's), the run and the user's message.
# The run starts at once, with attempt 1, unless an earlier run of the thread is still open.
ACCEPT = f"""
with t as (
  insert into thread (id, tenant, user_ref, last_seq)
  select %(thread)s, %(tenant)s, %(user)s, 1 where {UNUSED}
  on conflict (id) do update set last_seq = thread.last_seq + 1, updated_at = now(),
    session_id = case when thread.updated_at < now() - %(pause)s * interval '1 second'
                      then nextval('session_seq') else thread.session_id end,
    session_seq = case when thread.updated_at < now() - %(pause)s * interval '1 second'
                       then 0 else thread.session_seq end
    where thread.tenant = excluded.tenant and thread.user_ref = excluded.user_ref
  returning id, last_seq),
free as (select not exists (
  select from run where thread_id = %(thread)s and status in (0, 1)) and %(now)s as now),
r as (
  insert into run (id, tenant, thread_id, seq, status, attempt, idem_key, fingerprint, wanted_role, given,
                   webhook, worker, lease_until, watched)
  select %(run)s, %(tenant)s, t.id, t.last_seq, free.now::int, free.now::int, %(key)s, %(fingerprint)s, %(role)s,
         %(given)s, %(webhook)s, %(worker)s, now() + %(lease)s * interval '1 second', not free.now
  from t, free
  on conflict (tenant, user_ref, idem_key) where idem_key is not null do nothing
  returning id, thread_id, seq, status, attempt, started_at),
m as (
  insert into message (thread_id, seq, id, tenant, run_id, role, content)
  select r.thread_id, r.seq, %(message)s, %(tenant)s, r.id, 2, %(text)s from r)
select (select count(*) from t), r.status, r.attempt, r.started_at from (select 1) one left join r on true
"""  # noqa: S608 - constants

FIND = f"""
select r.id, r.thread_id, r.tenant, r.status, r.attempt, r.fingerprint, r.error, r.started_at, {TOLD}
from run r where r.tenant = %(tenant)s
"""  # noqa: S608 - constants
BY_ID = FIND + "and r.id = %(run)s"
BY_KEY = FIND + "and r.idem_key = %(key)s"

# A new attempt, if the run is open, not in somebody's hands, and first in its thread. Who reads a run that is taken
# over may still read where it was.
CLAIM = """
with c as (
  update run set attempt = attempt + 1, status = 1, worker = %(worker)s, watched = watched or attempt > 0,
                 lease_until = now() + %(lease)s * interval '1 second'
  where id = %(run)s and (status = 0 or status = 1 and lease_until < now()) and start_after is null
    and not exists (select from run o where o.thread_id = run.thread_id and o.status in (0, 1) and o.seq < run.seq
                      and (o.start_after is null or o.start_after <= now()))
  returning id, thread_id, tenant, seq, attempt, wanted_role, given, graph, work, watched)
select c.id, c.thread_id, c.attempt, c.tenant, t.user_ref, coalesce(m.content, ''), c.wanted_role, c.given, c.graph,
       c.work, c.watched
from c join thread t on t.id = c.thread_id left join message m on m.thread_id = c.thread_id and m.seq = c.seq
"""

# The same for the run that has waited longest, of those that could begin: where the process that accepted it has no
# seat. The steps of a turn are heard in that process alone, so its turns are left to it while it lives.
CLAIM_NEXT = CLAIM.replace(
    "where id = %(run)s",
    """where id = (
    select id from run w
    where w.status = 0 and w.start_after is null and w.id <> all(%(known)s::uuid[])
      and (w.work is not null or w.lease_until <= now())
      and not exists (select from run o where o.thread_id = w.thread_id and o.status in (0, 1) and o.seq < w.seq
                        and (o.start_after is null or o.start_after <= now()))
    order by w.started_at limit 1 for update skip locked)""",
)
OFFER = "select pg_notify('agentflow', 'pending ' || %(run)s)"
LEAVE = """
with l as (
  update run set lease_until = now()
  where id = any(%(runs)s::uuid[]) and status = 0 and start_after is null returning id)
select pg_notify('agentflow', 'pending ' || l.id) from l
"""

# A run that was to begin later takes its place in the thread when its time has come: behind what was said meanwhile.
# Who waits behind its old place is told, and who listens to the thread.
DUE = """
with t as (
  update thread set last_seq = thread.last_seq + 1 from run r
  where r.id = %(run)s and r.status = 0 and r.start_after <= now() and thread.id = r.thread_id
  returning thread.id, thread.last_seq),
r as (
  update run set seq = t.last_seq, start_after = null from t
  where run.id = %(run)s and run.status = 0 and run.start_after <= now()
  returning run.id, t.id as thread_id, t.last_seq),
m as (
  update message set seq = r.last_seq from r where message.thread_id = r.thread_id and message.run_id = r.id)
select pg_notify('agentflow', 'thread ' || r.thread_id), pg_notify('agentflow', 'begun ' || r.thread_id) from r
"""

# All leases of a process at once. A row that is being written just now is renewed the next time, and a run that this
# very attempt has ended is no lost one.
RENEW = """
with mine as (
  select r.id, r.status, r.stop
  from unnest(%(runs)s::uuid[], %(attempts)s::int[]) one (id, attempt)
  join run r on r.id = one.id and r.attempt = one.attempt and r.status <> 0),
free as (
  select r.id from run r join mine on mine.id = r.id where r.status = 1 order by r.id for update of r skip locked),
u as (
  update run set lease_until = now() + %(lease)s * interval '1 second' from free where run.id = free.id)
select id, stop from mine
"""

# Run done, answer, memories with their words, and the outbox rows of those without a vector; nothing if the
# attempt is stale, or a set that it remembers was forgotten with all that was in it.
FINISH = f"""
with f as (
  update run set status = 2, ended_at = now(), lease_until = null, role_name = %(role)s, adapter = %(adapter)s,
                 details = %(details)s, recalled = %(recalled)s, error = null, kind = %(kind)s,
                 exchange = %(exchange)s, given = null, worker = null
  where id = %(run)s and attempt = %(attempt)s and status = 1
    and %(sets)s = (select count(*) from scope where id = any(%(scopes)s::int[]))
  returning id, thread_id, tenant, seq, watched),
t as (
  update thread set last_seq = last_seq + 1, role_name = coalesce(%(role)s, role_name), updated_at = now(),
                    session_seq = session_seq + %(places)s, status = 'idle', error = null, interrupts = '{{}}'
  from f where thread.id = f.thread_id
  returning thread.id, thread.last_seq, thread.session_id, thread.session_seq, thread.last_seq > f.seq + 1 as more),
told as (
  select pg_notify('agentflow', 'thread ' || t.id) from t where t.more
  union all select pg_notify('agentflow', 'run ' || f.id) from f where f.watched),
a as (
  insert into message (thread_id, seq, id, tenant, run_id, role, content, role_name, adapter,
                       tokens_in, tokens_out, latency_ms)
  select t.id, t.last_seq, %(message)s, f.tenant, f.id, 3, %(answer)s, %(role)s, %(adapter)s,
         %(tokens_in)s, %(tokens_out)s, %(latency)s
  from f, t),
place as (select f.tenant, t.id as thread_id, t.session_id, t.session_seq - %(places)s as first from f, t),
{INSERT} {WORDS}
select count(*), (select count(*) from told) from f
"""  # noqa: S608 - constants

# An open run may be taken at once by another process; those behind a closed one may go on.
FAIL = """
with f as (
  update run set status = %(status)s, error = %(error)s, lease_until = now(),
                 ended_at = case when %(status)s = 3 then now() end
  where id = %(run)s and attempt = %(attempt)s and status = 1
  returning id, thread_id, status),
t as (
  update thread set status = 'error', error = %(error)s, updated_at = now()
  from f where thread.id = f.thread_id and f.status = 3)
select f.id, pg_notify('agentflow', 'thread ' || f.thread_id), pg_notify('agentflow', 'run ' || f.id),
       case when f.status = 0 then pg_notify('agentflow', 'pending ' || f.id) end
from f
"""

# Nobody waits for the answer any more: what was said of it stays in the thread as a part, and is no memory.
CANCEL = """
with f as (
  update run set status = 4, error = %(error)s, lease_until = null, ended_at = now()
  where id = %(run)s and attempt = %(attempt)s and status = 1
  returning id, tenant, thread_id),
t as (
  update thread set last_seq = last_seq + 1, updated_at = now()
  from f where thread.id = f.thread_id and %(said)s <> '' returning thread.last_seq),
m as (
  insert into message (thread_id, seq, id, tenant, run_id, role, status, content)
  select f.thread_id, t.last_seq, %(message)s, f.tenant, f.id, 3, 2, %(said)s from f, t)
select f.id, pg_notify('agentflow', 'thread ' || f.thread_id), pg_notify('agentflow', 'run ' || f.id) from f
"""

REOPEN = """
with r as (
  update run set status = 0, ended_at = null, lease_until = now() + %(lease)s * interval '1 second'
  where id = %(run)s and tenant = %(tenant)s and status in (3, 4) returning id)
delete from message using r where message.run_id = r.id and message.status = 2
"""

PARTS = PARTS_OF.format(thread="mine.thread_id", top="mine.seq")
# The message, the thread's last role, and the last messages of the finished turns before this one; steps that
# ended in tool calls are none.
CONTEXT = f"""
select m.content, t.role_name, t.pinned_role,
       coalesce(extract(epoch from now() - last.ended_at), 0)::float8, last.details,
       coalesce((select jsonb_agg(jsonb_build_array(h.role, h.content) order by h.at, h.role)
                 from (select r.seq as at, o.role, o.content
                       from {PARTS}
                       join run r on r.thread_id = mine.thread_id and r.seq between part.low and part.high
                       join message o on o.run_id = r.id
                       where r.seq < mine.seq and r.status = 2 and r.kind in (1, 5)
                       order by r.seq desc, o.role desc limit %(messages)s) h), '[]'::jsonb)
from run mine
join thread t on t.id = mine.thread_id
join message m on m.thread_id = mine.thread_id and m.seq = mine.seq
left join lateral (
  select ended_at, details from {PARTS}
  join run r on r.thread_id = mine.thread_id and r.seq between part.low and part.high
  where r.seq < mine.seq and r.status = 2
  order by r.seq desc limit 1) last on true
where mine.id = %(run)s and mine.tenant = %(tenant)s
"""  # noqa: S608 - constants

# A row that is being written is somebody's: to claim it would be to wait for him.
ABANDONED = """
select id from run where status in (0, 1) and lease_until < now() and (start_after is null or start_after <= now())
  and id <> all(%(known)s::uuid[])
order by started_at limit %(limit)s for update skip locked
"""
OPEN_RUNS = "select tenant, count(*)::int from run where status in (0, 1) group by tenant"
RELEASE = "update run set lease_until = now() - interval '1 second' where status in (0, 1)"
