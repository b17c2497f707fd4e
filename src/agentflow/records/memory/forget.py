"""Forgetting for real: whatever was said, and all that was made from it, in one transaction, with a receipt.

What goes: memories, their words, counts and vectors; what was derived from them; words that nobody uses any more;
the messages and turns themselves, corrections, checkpoints; and the copies that recall put into later turns. With a
user or tenant go their API keys and the sets their memories were in, which every process is told of. A receipt says
how much went and proves what by a digest; it holds no text. Homes of vectors outside Postgres are emptied by the
outbox: until then the receipt says how many are pending.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import uuid_utils
from psycopg import Rollback
from psycopg.errors import DeadlockDetected
from psycopg.types.json import Jsonb
from tenacity import AsyncRetrying, retry_if_exception_cause_type, stop_after_attempt

from agentflow import protocols
from agentflow.errors import BadInput
from agentflow.records.connections import Connection, Connections
from agentflow.records.memory.postings import distinct, take_out, unindexed
from agentflow.records.memory.rights import Owner
from agentflow.records.memory.traces import Traces
from agentflow.records.memory.vocabulary import LANGUAGE, NEAR
from agentflow.records.signals import LESSONS, SETS_GONE
from agentflow.retrieval.terms import stems, term, words
from agentflow.turn import Json

BATCH = 2000
LOOKED_AT = 20_000
"""Memories of a collection's small scopes that are asked whether a word is still used: one that is not found goes, and
is learnt again when somebody says it."""
COUNTED = (
    "memories",
    "threads",
    "turns",
    "documents",
    "feedback",
    "checkpoints",
    "keys",
    "postings",
    "words",
)
LIMITS = "select set_config('statement_timeout', '10min', true), set_config('lock_timeout', '60s', true)"

# Whoever writes into the owner's scopes waits for the end of this transaction.
LOCK = """
select s.id from scope s
where s.tenant = %(tenant)s and (%(all)s or s.user_ref = %(user)s or s.user_ref is null and %(shared)s)
order by s.id for update
"""
CHOSEN = """
select m.collection_id, m.id, m.scope_id, m.bow, sha256(convert_to(m.content, 'UTF8')), m.source_message, m.content,
       m.document_id, m.history, m.speaker
from memory m join scope s on s.id = m.scope_id
where s.tenant = %(tenant)s and (%(all)s or s.user_ref = %(user)s or s.user_ref is null and %(shared)s) and {which}
"""
WHICH = {
    "ids": "m.id = any(%(ids)s::bigint[])",
    "thread": "(m.thread_id = %(thread)s or s.thread_id = %(thread)s)",
    "document": "m.document_id = %(document)s",
    "text": "position(lower(%(text)s) in lower(m.content || m.history::text)) > 0",
    "collection": "m.collection_id = (select id from collection where tenant = %(tenant)s and name = %(collection)s)",
    "user": "s.user_ref = %(user)s",
    "tenant": "true",
    "expired": "m.expires_at < now() and not m.pinned",
}
THREADS = """
select id from thread where tenant = %(tenant)s
  and (%(by)s = 'tenant' or user_ref = %(user)s and (%(by)s = 'user' or id = %(thread)s)) for update
"""
DERIVED = "select distinct item_id from link where source_id = any(%(ids)s::bigint[])"
LINKS = "delete from link where item_id = any(%(ids)s::bigint[]) or source_id = any(%(ids)s::bigint[])"
ITEMS = """
delete from memory m using unnest(%(collections)s::int[], %(ids)s::bigint[]) u(collection, id)
where m.collection_id = u.collection and m.id = u.id
"""
OUTBOX = "delete from outbox where item_id = any(%(ids)s::bigint[])"
# What other memories of small scopes say, newest first: those have no postings to ask.
OTHERS = """
select m.bow from memory m join scope s on s.id = m.scope_id
where m.collection_id = %(collection)s and not s.posted and m.bow is not null order by m.id desc limit %(limit)s
"""
WORDS = """
delete from word w where w.collection_id = %(collection)s and w.term = any(%(terms)s::int[])
  and not exists (select from scope s join posting p on p.scope_id = s.id and p.term = w.term and p.block = 0
                  where s.collection_id = w.collection_id and s.posted and p.df > 0)
returning w.term
"""
RELATED = f"""
update word set nearest = array(select e from unnest(nearest) e where {NEAR.format(entry="e")} <> all(%(terms)s::int[]))
where collection_id = %(collection)s
  and exists (select from unnest(nearest) e where {NEAR.format(entry="e")} = any(%(terms)s::int[]))
"""  # noqa: S608 - constants
# A document that lost chunks is read again when it is added again; without chunks it goes.
SHORTENED = """
update document d set digest = '', chunks = (select count(*) from memory m where m.document_id = d.id)
where d.id = any(%(documents)s::bigint[])
"""
EMPTY = "delete from document where id = any(%(documents)s::bigint[]) and chunks = 0"
# A turn that is under way may have recalled some of it: its stored answer is looked at again when it is over.
AGAIN = """
insert into outbox (tenant, kind, payload, not_before)
select %(tenant)s, 'forget', %(payload)s, now() + interval '1 hour'
where exists (select from run where tenant = %(tenant)s and status in (0, 1))
"""
# Sets that nobody has any more. Who remembers their numbers is told, and so is who learnt from a correction.
SETS = """
delete from scope s
where s.tenant = %(tenant)s and (%(by)s = 'tenant' or s.user_ref = %(user)s and %(by)s = 'user'
                                 or s.thread_id = any(%(threads)s::uuid[]))
  and not exists (select from memory m where m.collection_id = s.collection_id and m.scope_id = s.id)
"""
TELL = "select pg_notify('agentflow', %(told)s)"
RECEIPT = """
insert into receipt (id, tenant, owner, selected_by, selector, digest, counts)
values (%(id)s, %(tenant)s, %(owner)s, %(by)s, %(selector)s, %(digest)s, %(counts)s)
"""
# A place of vectors outside Postgres that has not heard yet of what its transaction deleted is pending.
RECEIPTS = """
select r.id, r.selected_by, r.counts, encode(r.digest, 'hex'), r.created_at,
       (select count(distinct (p.collection_id, p.place)) from vector_log l join vector_place p
          on p.collection_id = l.collection_id and (p.written, p.log_id) < (l.written, l.id)
        where l.tenant = r.tenant and l.written = r.written)
from receipt r
where r.tenant = %(tenant)s and r.owner = %(owner)s and (%(id)s::uuid is null or r.id = %(id)s)
order by r.created_at desc limit 500
"""


@dataclass(frozen=True)
class Selector:
    """What to forget: `by` one of WHICH, and the value that goes with it. "user" and "tenant" need none."""

    by: str
    value: Any = None

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps([self.by, self.value], default=str).encode()).digest()


@dataclass(frozen=True)
class Found:
    """What a selector chose, and what hangs on it."""

    rows: Sequence[Any]
    threads: Sequence[Any]

    @property
    def ids(self) -> list[int]:
        return [row[1] for row in self.rows]

    @property
    def digest(self) -> bytes:
        """Over the ids and content hashes of all that goes: proves what without telling it."""
        told = hashlib.sha256()
        for row in sorted(self.rows, key=lambda row: row[1]):
            told.update(row[1].to_bytes(8, "big") + bytes(row[4]))
        for thread in sorted(str(thread) for thread in self.threads):
            told.update(thread.encode())
        return told.digest()


@dataclass(frozen=True)
class Forgetting:
    """Forgets, or says what would be forgotten. Raises DatabaseDown.

    `process` is this one's name: what it does itself it need not be told of.
    """

    connections: Connections
    process: str = ""

    async def forget(self, owner: Owner, selector: Selector, *, preview: bool = False) -> Json:
        """Forget all that the selector names of the owner's; returns the receipt, also of nothing.

        With `preview` everything is undone at the end: the counts are exact, and nothing has changed.
        """
        if selector.by not in WHICH:
            raise BadInput(f"Forget by one of {', '.join(WHICH)}.", field="by", value=selector.by)
        # A turn that ends at this moment locks the same rows in another order; Postgres lets one of both go first.
        retrying = AsyncRetrying(
            retry=retry_if_exception_cause_type(DeadlockDetected), stop=stop_after_attempt(5), reraise=True
        )
        return await retrying(self._once, owner, selector, preview)

    async def _once(self, owner: Owner, selector: Selector, preview: bool) -> Json:
        told: Json = {}
        # As the tenant: what others of it still use, such as words, must be seen to stay.
        everybody = protocols.Owner(owner.tenant)
        async with self.connections.use(everybody) as connection, connection.transaction() as transaction:
            await connection.execute(LIMITS)
            found = await self._found(connection, owner, selector)
            counts = await self._gone(connection, owner, selector, found)
            told = await self._receipt(connection, owner, selector, found, counts)
            if preview:
                raise Rollback(transaction)
        return {**told, "preview": preview}

    async def receipts(self, owner: Owner, number: str | None = None) -> list[Json]:
        """The owner's receipts, newest first."""
        parameters = {"tenant": owner.tenant, "owner": _owner(owner), "id": number}
        async with self.connections.use(owner.seen) as connection:
            rows = await (await connection.execute(RECEIPTS, parameters)).fetchall()
        return [_told(row) for row in rows]

    async def _found(self, connection: Connection, owner: Owner, selector: Selector) -> Found:
        named = {selector.by: selector.value, **owner.named, "all": selector.by in ("tenant", "expired")}
        await connection.execute(LOCK, named)
        which = CHOSEN.format(which=WHICH[selector.by])
        rows = await (await connection.execute(which.encode(), named)).fetchall()
        ids = [row[1] for row in rows]
        derived = await (await connection.execute(DERIVED, {"ids": ids})).fetchall()
        missing = sorted({item for (item,) in derived} - set(ids))
        if missing:
            every = CHOSEN.format(which=WHICH["ids"])
            rows += await (await connection.execute(every.encode(), {**named, "ids": missing})).fetchall()
        threads: Sequence[Any] = []
        if selector.by in ("thread", "user", "tenant"):
            asked = {
                **named,
                "by": selector.by,
                "thread": selector.value if selector.by == "thread" else None,
            }
            threads = [one for (one,) in await (await connection.execute(THREADS, asked)).fetchall()]
        return Found(rows, threads)

    async def _gone(
        self, connection: Connection, owner: Owner, selector: Selector, found: Found
    ) -> dict[str, int]:
        counts = await remove(connection, found.rows)
        said = [(row[5], wording) for row in found.rows if row[5] is not None for wording in _wordings(row)]
        traces = Traces(connection, owner.tenant)
        runs = [*await traces.redacted(said, found.ids), *await traces.runs_of(found.threads)]
        if selector.by == "text":
            runs += await traces.matching(selector.value, owner.user)
        counts |= {"turns": len(set(runs)), "threads": len(found.threads)}
        counts["feedback"] = await traces.corrections(runs)
        if found.rows or selector.by != "expired":
            await traces.answers(owner.user, shared=owner.shared or selector.by == "expired")
        counts["keys"] = await traces.keys(selector.by, owner.user)
        await traces.named("run_id", runs, but=("message",))
        await traces.named("thread_id", found.threads)
        counts["checkpoints"] = await traces.checkpoints(found.threads)
        await connection.execute(AGAIN, {"tenant": owner.tenant, "payload": Jsonb({"ids": found.ids})})
        if selector.by == "user":
            await traces.named("user_ref", [owner.user])
            await traces.stored(owner.user)
        if selector.by == "tenant":
            await traces.everything()
            await traces.stored(None)
        await self._told(connection, owner, selector, found, counts)
        return counts

    async def _told(
        self, connection: Connection, owner: Owner, selector: Selector, found: Found, counts: dict[str, int]
    ) -> None:
        """Empty sets go; what other processes must know reaches them with the end of the transaction."""
        asked = {**owner.named, "by": selector.by, "threads": list(found.threads)}
        told = []
        if (await connection.execute(SETS, asked)).rowcount:
            told.append(f"{SETS_GONE} {owner.tenant}")
        if counts["feedback"]:
            told.append(f"{LESSONS} forgotten {self.process}")
        for one in told:
            await connection.execute(TELL, {"told": one})

    async def _receipt(
        self, connection: Connection, owner: Owner, selector: Selector, found: Found, counts: dict[str, int]
    ) -> Json:
        number = str(uuid_utils.uuid7())
        parameters = {
            "id": number,
            "tenant": owner.tenant,
            "owner": _owner(owner),
            "by": selector.by,
            "selector": selector.digest,
            "digest": found.digest,
            "counts": Jsonb(counts),
        }
        await connection.execute(RECEIPT, parameters)
        return _told(await (await connection.execute(RECEIPTS, parameters)).fetchone())


async def remove(connection: Connection, rows: Sequence[Any]) -> dict[str, int]:
    """Remove memories (rows of CHOSEN) with their words, links, documents and what is owed to them."""
    postings = 0
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        named = {"ids": [row[1] for row in batch], "collections": [row[0] for row in batch]}
        # What is owed first: who pays it holds the debt, then writes the memory.
        await connection.execute(OUTBOX, named)
        postings += await take_out(connection, [row[:4] for row in batch])
        for statement in (LINKS, ITEMS):
            await connection.execute(statement, named)
    unused = await _words(connection, rows)
    documents = sorted({row[7] for row in rows if row[7] is not None})
    for statement in (SHORTENED, EMPTY):
        await connection.execute(statement, {"documents": documents})
    return {"memories": len(rows), "postings": postings, "words": unused, "documents": len(documents)}


async def _words(connection: Connection, rows: Sequence[Any]) -> int:
    """Words that were learnt from the memories and that no other memory of their collection has."""
    gone = 0
    for collection in sorted({row[0] for row in rows}):
        named = {"collection": collection, "limit": LOOKED_AT}
        others = await (await connection.execute(OTHERS, named)).fetchall()
        said = _said([row for row in rows if row[0] == collection])
        unused = sorted(said.difference(distinct([bow for (bow,) in others])))
        deleted = await (await connection.execute(WORDS, {**named, "terms": unused})).fetchall()
        await connection.execute(RELATED.encode(), {**named, "terms": [number for (number,) in deleted]})
        gone += len(deleted)
    return gone


def _said(rows: Sequence[Any]) -> set[int]:
    """The terms of memories. Hidden ones are in no index any more, and earlier wordings never were at once."""
    unlisted = [text for row in rows if row[3] is None or row[8] for text in (row[9], *_wordings(row))]
    hidden = {term(stem) for text in unlisted for stem in stems(words(text), LANGUAGE)}
    return hidden.union(unindexed([row[:4] for row in rows])["terms"])


def _wordings(row: Any) -> list[str]:
    return [row[6], *(former["content"] for former in row[8])]


def _owner(owner: Owner) -> bytes:
    return hashlib.sha256(json.dumps([owner.tenant, owner.user]).encode()).digest()


def _told(row: Any) -> Json:
    number, by, counts, digest, created, pending = row
    return {
        "receipt": str(number),
        "by": by,
        "counts": {name: counts.get(name, 0) for name in COUNTED},
        "digest": digest,
        "status": "pending" if pending else "done",
        "pending": pending,
        "at": created.astimezone(UTC).isoformat(timespec="seconds"),
    }
