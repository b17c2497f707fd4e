"""Traces of what was said, beyond the memories: messages, turns, corrections, checkpoints, other tables' rows.

A forgotten thread goes as a whole. Of a forgotten memory only the words go: from the message, from the turn's
stored answer, and from later turns that recall showed it to.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import sql

from agentflow.records.connections import Connection
from agentflow.records.details import emptied, replaced, without

GONE = "(forgotten)"

MESSAGES = """
update message m set content = coalesce(nullif(btrim(replace(m.content, %(content)s, '')), ''), %(gone)s)
where m.id = %(source)s and m.tenant = %(tenant)s returning m.run_id
"""
ANSWER = """
update message set content = coalesce(nullif(btrim(replace(content, %(content)s, '')), ''), %(gone)s)
where run_id = %(run)s and role = 3 and position(%(content)s in content) > 0
"""
# What recall showed to later turns: which memories, and the words that found them.
SHOWN = """
select id, details, recalled from run where tenant = %(tenant)s and recalled && %(ids)s::bigint[] for update
"""
DETAILED = """
update run set details = %(details)s, recalled = coalesce(%(recalled)s::bigint[], recalled) where id = %(run)s
"""
CORRECTIONS = """
delete from feedback where tenant = %(tenant)s and run_id = any(%(runs)s::uuid[]) returning content, created_at
"""
# Explanations of later decisions may quote a correction.
LATER = """
select id, details from run
where tenant = %(tenant)s and details is not null and ended_at >= %(since)s
  and (%(after)s::uuid is null or id > %(after)s) order by id limit 1000
"""
RUNS = "select id from run where thread_id = any(%(threads)s::uuid[])"
# What a client sent and what a graph keeps of it, where a run of the protocol holds the words once more.
WORK = """
update run set work = replace(work::text, %(inside)s, %(gone)s)::jsonb, given = null
where id = %(run)s and status not in (0, 1) and position(%(inside)s in work::text) > 0
"""
STATES = """
update thread set state = replace(state::text, %(inside)s, %(gone)s)::jsonb
where id = (select thread_id from run where id = %(run)s) and position(%(inside)s in state::text) > 0
"""
# Messages that never became memories, such as those of failed turns.
MATCHED = """
update message m set content = %(gone)s
where m.tenant = %(tenant)s and m.user_ref = %(user)s and position(lower(%(text)s) in lower(m.content)) > 0
returning m.run_id
"""
EMPTIED = """
update run set given = null, work = null
where id = any(%(runs)s::uuid[]) and status not in (0, 1)
  and position(lower(%(text)s) in lower(concat(work::text, given::text))) > 0
"""
DETAILS = "select id, details from run where id = any(%(runs)s::uuid[]) and details is not null"
UNSTATED = """
update thread set state = null
where tenant = %(tenant)s and user_ref = %(user)s and position(lower(%(text)s) in lower(state::text)) > 0
"""
KEYS = "delete from api_key where tenant = %(tenant)s and (%(all)s or user_ref = %(user)s)"
# What was answered may hold the words; a request under way keeps its claim.
ANSWERS = """
delete from claim where tenant = %(tenant)s and (%(shared)s or user_ref = %(user)s) and status is not null
"""
GRAPHS = """
select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'langgraph' and c.relname = any(%(names)s::text[])
"""
CHECKPOINTS = ("checkpoint_writes", "checkpoint_blobs", "checkpoints")
# Memories are forgotten one by one; these hold their numbers, who may come in, or nothing that anybody said.
KEPT = (
    *(
        "memory",
        "posting",
        "word",
        "link",
        "outbox",
        "scope",
        "collection",
        "receipt",
    ),
    *("vector_place", "vector_log", "api_key", "spending", "assistant", "assistant_version"),
)


@dataclass(frozen=True)
class Traces:
    """Removes traces within the transaction of `connection`."""

    connection: Connection
    tenant: int

    async def redacted(self, said: Sequence[tuple[UUID, str]], ids: Sequence[int]) -> list[UUID]:
        """Take words out of their messages and answers, and memories out of later turns; returns those runs."""
        runs: set[UUID] = set()
        for source, content in said:
            given = {"source": source, "content": content, "gone": GONE, "tenant": self.tenant}
            for (run,) in await self._rows(MESSAGES, given):
                inside = json.dumps(content, ensure_ascii=False)[1:-1]
                for statement in (ANSWER, WORK, STATES):
                    await self.connection.execute(statement, {**given, "run": run, "inside": inside})
                runs.add(run)
        for run, details, recalled in await self._rows(SHOWN, {"ids": list(ids), "tenant": self.tenant}):
            await self._detailed(run, *without(details, recalled, frozenset(ids)))
            runs.add(run)
        return sorted(runs)

    async def matching(self, text: str, user: str) -> list[UUID]:
        """Empty the user's messages that hold a text, and what is stored with their turns; returns those turns."""
        given = {"text": text, "user": user, "tenant": self.tenant, "gone": GONE}
        runs = [run for (run,) in await self._rows(MATCHED, given)]
        await self.connection.execute(EMPTIED, {**given, "runs": runs})
        for run, details in await self._rows(DETAILS, {"runs": runs}):
            changed = emptied(details, text)
            if changed is not None:
                await self._detailed(run, changed, [])
        await self.connection.execute(UNSTATED, given)
        return runs

    async def runs_of(self, threads: Sequence[UUID]) -> list[UUID]:
        return [run for (run,) in await self._rows(RUNS, {"threads": list(threads)})]

    async def corrections(self, runs: Sequence[UUID]) -> int:
        """Corrections of these turns, and what later decisions quote of them; returns how many."""
        texts = await self._rows(CORRECTIONS, {"tenant": self.tenant, "runs": list(runs)})
        for text, since in texts:
            await self._unquoted(text, since)
        return len(texts)

    async def _unquoted(self, text: str, since: datetime) -> None:
        """A correction's words leave the explanations of the turns since."""
        after, rows = None, None
        while rows is None or rows:
            rows = await self._rows(LATER, {"tenant": self.tenant, "since": since, "after": after})
            for after, details in rows:
                changed = replaced(details, text, GONE)
                if changed is not None:
                    await self._detailed(after, changed, None)

    async def _detailed(self, run: UUID, details: bytes, recalled: Sequence[int] | None) -> None:
        parameters = {"run": run, "details": details, "recalled": recalled}
        await self.connection.execute(DETAILED, parameters)

    async def keys(self, by: str, user: str) -> int:
        """API keys of a forgotten user or tenant; returns how many."""
        if by not in ("user", "tenant"):
            return 0
        given = {"tenant": self.tenant, "user": user, "all": by == "tenant"}
        return (await self.connection.execute(KEYS, given)).rowcount

    async def answers(self, user: str, *, shared: bool) -> None:
        """Answers that are kept for idempotency keys: the user's, or everybody's of the tenant."""
        given = {"tenant": self.tenant, "user": user, "shared": shared}
        await self.connection.execute(ANSWERS, given)

    async def named(self, column: str, values: Sequence[Any], *, but: Sequence[str] = ()) -> None:
        """Rows of any table that name one of these threads, runs or users."""
        from agentflow import tables  # noqa: PLC0415 - SQLAlchemy: slow to import, and seldom needed

        if not values:
            return
        for table in reversed(tables.metadata.sorted_tables):
            if column in table.c and "tenant" in table.c and table.name not in (*KEPT, *but):
                statement = sql.SQL("delete from {} where tenant = %s and {} = any(%s)").format(
                    sql.Identifier(tables.SCHEMA, table.name), sql.Identifier(column)
                )
                await self.connection.execute(statement, (self.tenant, list(values)))
        if column == "thread_id":
            await self.connection.execute("delete from thread where id = any(%s)", (list(values),))

    async def everything(self) -> None:
        """Rows of any table that name the tenant."""
        from agentflow import tables  # noqa: PLC0415 - as above

        for table in reversed(tables.metadata.sorted_tables):
            if "tenant" in table.c and table.name not in KEPT:
                name = sql.Identifier(tables.SCHEMA, table.name)
                statement = sql.SQL("delete from {} where tenant = %s").format(name)
                await self.connection.execute(statement, (self.tenant,))

    async def checkpoints(self, threads: Sequence[UUID]) -> int:
        """LangGraph's checkpoints of these threads; returns how many."""
        return await self._graphs(CHECKPOINTS, "thread_id = any(%s)", [str(one) for one in threads])

    async def stored(self, user: str | None) -> None:
        """What graphs keep for a user (None: for everybody of the tenant): store and checkpoints."""
        if user is None:
            await self._graphs((*CHECKPOINTS, "store"), "tenant = any(%s)", [self.tenant])
        else:
            await self._graphs((*CHECKPOINTS, "store"), "user_ref = any(%s)", [user])

    async def _graphs(self, names: Sequence[str], which: LiteralString, values: Sequence[Any]) -> int:
        """Rows of LangGraph's tables, as far as they are there; returns how many of the last."""
        there = {name for (name,) in await self._rows(GRAPHS, {"names": list(names)})}
        gone = 0
        for name in names:
            if name in there and values:
                table = sql.Identifier("langgraph", name)
                statement = sql.SQL("delete from {} where {}").format(table, sql.SQL(which))
                gone = (await self.connection.execute(statement, (list(values),))).rowcount
        return gone

    async def _rows(self, statement: str, parameters: dict[str, Any]) -> list[Any]:
        return await (await self.connection.execute(statement.encode(), parameters)).fetchall()
