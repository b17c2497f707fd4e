"""Jobs: made with the end of a turn, done once by one of several, given back by the dead, kept when given up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.types.json import Jsonb

from agentflow import ending
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.protocols import Outcome, Request
from agentflow.records.checkup import condition
from agentflow.records.connections import Connections
from agentflow.records.jobs import AT_ONCE, GivenUp, Jobs, Later
from agentflow.records.ledger import PostgresLedger
from agentflow.records.memory.scopes import Scopes
from agentflow.runs.clock import Clock
from agentflow.wiring.checkup.database import judged

USAGE = {"prompt_tokens": 0, "completion_tokens": 0}
HOOK = "https://hooks.example/"


@asynccontextmanager
async def working(*several: Jobs) -> AsyncIterator[None]:
    """Workers at work."""
    for jobs in several:
        await jobs.open()
    tasks = [asyncio.create_task(jobs.run()) for jobs in several]
    try:
        yield
    finally:
        await ending.end(tasks)
        for jobs in several:
            await jobs.close()


@asynccontextmanager
async def opened(jobs: Jobs) -> AsyncIterator[Jobs]:
    await jobs.open()
    try:
        yield jobs
    finally:
        await jobs.close()


def listed(database: str) -> list[tuple]:
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "select task_name, status::text, args from jobs.procrastinate_jobs order by id"
        )
        return rows.fetchall()


def ledger_over(connections: Connections) -> PostgresLedger:
    scopes = Scopes(connections, {}, FakeEmbedder.id, FakeEmbedder.dim)
    return PostgresLedger(connections, scopes, worker="test")


async def ended(connections: Connections, webhook: str | None) -> str:
    ledger = ledger_over(connections)
    lease = (await ledger.accept(Request(text="hi", webhook=webhook))).lease
    assert lease is not None
    await ledger.finish(lease, Outcome("hi", {}, None, None, USAGE, 1))
    return lease.run_id


async def test_the_end_of_a_turn_is_the_job_s_beginning(database: str, connections: Connections) -> None:
    run = await ended(connections, HOOK)
    await ended(connections, None)
    assert listed(database) == [("callback", "todo", {"run": run})]


async def test_a_turn_that_does_not_end_owes_nobody_a_call(database: str, connections: Connections) -> None:
    ledger = ledger_over(connections)
    lease = (await ledger.accept(Request(text="hi", webhook=HOOK))).lease
    assert lease is not None
    await ledger.fail(lease, {"error": "Interrupted"}, final=False)
    assert listed(database) == []
    await ledger.fail((await ledger.claim(lease.run_id)) or lease, {"error": "EngineDown"}, final=True)
    assert [name for name, *_ in listed(database)] == ["callback"]


async def test_two_workers_do_each_job_once(database: str, soon) -> None:
    done: list[str] = []

    async def note(payload: dict) -> None:
        done.append(payload["run"])

    first, second = Jobs(database), Jobs(database)
    for jobs in (first, second):
        jobs.on("callback", note)
    async with working(first, second):
        for number in range(20):
            await first.defer("callback", {"run": str(number)}, once=str(number))
        await soon(lambda: len(done) >= 20 and not listed(database))
    assert sorted(done, key=int) == [str(number) for number in range(20)]


async def test_what_one_does_for_all_is_done_by_one(database: str, soon) -> None:
    done: list[int] = []

    def sweep(which: int) -> Callable:
        async def work() -> None:
            done.append(which)

        return work

    several = [Jobs(database) for _ in range(3)]
    for which, jobs in enumerate(several):
        jobs.every("0 0 1 1 *", "never", sweep(9))
        jobs.every("*/10 * * * *", "sweep", sweep(which))
    async with working(*several):
        await soon(lambda: len(done) >= 1 and not listed(database))
    assert len(done) == 1


async def test_receivers_that_hang_keep_no_other_job_waiting(
    database: str, connections: Connections, soon
) -> None:
    done: list[str] = []
    answered = asyncio.Event()

    async def hanging(_payload: dict) -> None:
        done.append("callback")
        await answered.wait()

    async def prompt(_payload: dict) -> None:
        done.append("cron")

    for _ in range(AT_ONCE * 2):
        await ended(connections, HOOK)
    jobs = Jobs(database)
    jobs.on("callback", hanging)
    jobs.on("cron", prompt)
    async with working(jobs):
        await soon(lambda: done.count("callback") == AT_ONCE)
        await jobs.defer("cron", {}, once="a")
        answered.set()
        await soon(lambda: not listed(database))
    assert done.index("cron") <= AT_ONCE + 1


class Row:
    """A cron that is due, as its table has it."""

    def __init__(self) -> None:
        self.next_at = datetime.now(UTC) - timedelta(seconds=1)
        self.begun = 0
        self.gate = asyncio.Event()

    async def due(self, **_: object) -> list[dict]:
        row = {"cron_id": "c", "schedule": "0 0 1 1 *", "timezone": "Asia/Tokyo", "enabled": True}
        due = {**row, "next_run_date": self.next_at.isoformat(), "due": self.next_at}
        return [due] if self.next_at <= datetime.now(UTC) else []

    async def fired(self, _cron: str, *, was: datetime, next_at: datetime) -> bool:
        found, self.next_at = was == self.next_at, next_at
        return found

    async def begin(self, _cron: dict) -> None:
        self.begun += 1
        await self.gate.wait()


async def test_a_cron_that_is_looked_for_while_it_begins_begins_once(database: str, soon) -> None:
    row, jobs, other = Row(), Jobs(database), Jobs(database)
    clocks = [Clock(row, one, row.begin) for one in (jobs, other)]  # type: ignore[arg-type] # a row of its table
    for clock, one in zip(clocks, (jobs, other), strict=True):
        one.on("cron", clock.strike)
    async with working(jobs, other):
        (cron,) = await row.due()
        await clocks[0].wake(
            {**cron, "next_run_date": row.next_at.astimezone(ZoneInfo("Asia/Tokyo")).isoformat()}
        )
        await soon(lambda: row.begun == 1)
        for clock in clocks:
            await clock.sweep()
        row.gate.set()
        await soon(lambda: [status for _, status, _ in listed(database)] == ["todo"])
    assert (row.begun, row.next_at > datetime.now(UTC)) == (1, True)


async def test_runs_whose_row_is_held_keep_nobody_from_recovering_the_others(
    database: str, connections: Connections
) -> None:
    ledger = ledger_over(connections)
    held, free = [(await ledger.accept(Request(text="hi"))).record.run_id for _ in range(2)]
    await ledger.release_all()
    with psycopg.connect(database) as stopped:
        stopped.execute("set role agentflow_background")
        stopped.execute("update agentflow.run set meta = meta where id = %s", (held,))
        assert await ledger.abandoned(limit=9) == [free]
    assert await ledger.abandoned(limit=9) == [held, free]


async def test_two_processes_recover_each_run_once(connections: Connections) -> None:
    first, second = ledger_over(connections), ledger_over(connections)
    runs = [(await first.accept(Request(text="hi"))).record.run_id for _ in range(12)]
    await first.release_all()

    async def recovered(ledger: PostgresLedger) -> list[str]:
        leases = [await ledger.claim(run) for run in await ledger.abandoned(limit=16)]
        return [lease.run_id for lease in leases if lease is not None]

    taken = await asyncio.gather(recovered(first), recovered(second))
    assert sorted([*taken[0], *taken[1]]) == sorted(runs)


async def test_a_job_goes_on_where_it_was_put_off(database: str, soon) -> None:
    seen: list[dict] = []

    async def reluctant(payload: dict) -> None:
        seen.append(payload)
        if len(seen) == 1:
            raise Later("HTTP 503", pause=0, noted={"tries": 4})

    jobs = Jobs(database)
    jobs.on("callback", reluctant)
    async with working(jobs):
        await jobs.defer("callback", {"run": "a"}, once="a")
        await soon(lambda: len(seen) == 2 and not listed(database))
    assert seen == [{"run": "a"}, {"run": "a", "tries": 4, "reason": "HTTP 503"}]


async def test_a_job_that_fails_while_its_like_waits_leaves_the_work_to_that_one(database: str, soon) -> None:
    seen: list[dict] = []
    jobs = Jobs(database)

    async def embed(payload: dict) -> None:
        seen.append(payload)
        if len(seen) == 1:
            await jobs.defer("embed", {"again": True}, once="a")
            raise ValueError("the first fails")

    jobs.on("embed", embed)
    async with working(jobs):
        await jobs.defer("embed", {}, once="a")
        await soon(lambda: len(seen) == 2 and not listed(database))
    assert seen == [{}, {"again": True}]


async def test_a_job_of_the_dead_whose_like_waits_is_not_given_back(database: str) -> None:
    jobs = Jobs(database)
    async with opened(jobs):
        await jobs.defer("embed", {}, once="a")
        with psycopg.connect(database, options="-c search_path=jobs") as connection:
            connection.execute(
                "insert into procrastinate_jobs (queue_name, task_name, status, args, queueing_lock) "
                "values ('default', 'embed', 'doing', '{}', 'embed a')"
            )
        assert await jobs.revive(alone=True) == 1
    assert len(listed(database)) == 1


async def test_what_was_given_up_stays_with_its_reason_and_the_doctor_tells(database: str, soon) -> None:
    async def never(_payload: dict) -> None:
        raise GivenUp("HTTP 404", noted={"tries": 1})

    jobs = Jobs(database)
    jobs.on("callback", never)
    async with working(jobs):
        await jobs.defer("callback", {"run": "a"}, once="a")
        await soon(lambda: [status for _, status, _ in listed(database)] == ["failed"])
        trouble = await jobs.trouble("callback", "run", "a")
        assert trouble == {"status": "given up", "tries": 1, "reason": "HTTP 404", "next": None}
        assert await jobs.trouble("callback", "run", "b") is None
        assert await jobs.counted() == {("callback", "failed"): 1}
    (row,) = [row for row in judged(await condition(database)) if row.what == "jobs"]
    assert (row.verdict, row.found) == ("warning", "given up: 1 x callback, HTTP 404")


@pytest.mark.parametrize(
    ("age", "alone", "given_back"), [("1 second", True, 1), ("1 second", False, 0), ("1 minute", False, 1)]
)
async def test_the_jobs_of_the_dead_are_given_back(
    database: str, age: str, alone: bool, given_back: int
) -> None:
    with psycopg.connect(database, options="-c search_path=jobs") as connection:
        worker = connection.execute(
            "insert into procrastinate_workers (last_heartbeat) values (now() - %s::interval) returning id",
            (age,),
        ).fetchone()
        connection.execute(
            "insert into procrastinate_jobs (queue_name, task_name, status, worker_id, args) "
            "values ('default', 'callback', 'doing', %s, %s)",
            (*(worker or ()), Jsonb({"run": "a"})),
        )
    async with opened(Jobs(database)) as jobs:
        assert await jobs.revive(alone=alone) == given_back
    assert [status for _, status, _ in listed(database)] == ["todo" if given_back else "doing"]


async def test_a_job_whose_end_could_not_be_written_is_done_again(database: str, soon) -> None:
    done: list[dict] = []

    async def work(payload: dict) -> None:
        done.append(payload)

    jobs = Jobs(database)
    jobs.on("callback", work)
    async with working(jobs):
        await jobs.defer("callback", {"run": "a"}, once="a")
        await soon(lambda: len(done) == 1 and not listed(database))
        with psycopg.connect(database, options="-c search_path=jobs") as connection:
            connection.execute(
                "insert into procrastinate_jobs (queue_name, task_name, status, worker_id, args) "
                "values ('default', 'callback', 'doing', %s, '{}')",
                (jobs.worker,),
            )
        assert [await jobs.revive(), await jobs.revive()] == [0, 1]
