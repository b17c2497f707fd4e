"""kill -9 of the turn at every point, and of Postgres under it: nothing acknowledged is lost, nothing is doubled."""

import concurrent.futures
import os
import signal

import httpx
import psycopg
import pytest

POINTS = (
    "after_accept",
    "after_classify",
    "after_select",
    "after_recall",
    "after_token",
    "after_generate",
    "before_commit",
    "after_commit",
    "after_done",
)
BODY = {"input": "My dog is called Rex", "role": "coder"}
KEY = {"Idempotency-Key": "the-turn"}


def rows(house, query: str) -> list[tuple]:
    sockets = next((house.folder / ".agentflow").glob("postgres/postmaster.pid")).read_text().splitlines()[4]
    with psycopg.connect(f"host={sockets} user=postgres dbname=agentflow") as connection:
        return connection.execute(query.encode()).fetchall()


COUNTS = """
select (select count(*) from agentflow.run), (select count(*) from agentflow.run where status = 2),
       (select count(*) from agentflow.message), (select count(*) from agentflow.memory)
"""


@pytest.mark.parametrize("point", POINTS)
def test_a_turn_killed_anywhere_is_finished_once_by_the_next_start(house, until, point) -> None:
    with house.start(fault=point) as client, pytest.raises(httpx.HTTPError):
        client.post("/invoke", json=BODY, headers=KEY)
    assert house.wait_for_death() == -signal.SIGKILL
    with house.start() as client:
        until(lambda: rows(house, COUNTS)[0][1] == 1)
        answer = client.post("/invoke", json=BODY, headers=KEY).json()
        assert answer["output"].startswith("[coder]")
        assert rows(house, COUNTS) == [(1, 1, 2, 2)]


def test_postgres_killed_under_turns_comes_back_and_nothing_acknowledged_is_missing(house, until) -> None:
    with house.start() as client, concurrent.futures.ThreadPoolExecutor(8) as pool:

        def turn(number: int) -> str | None:
            try:
                response = client.post("/invoke", json={"input": f"message {number}", "role": "coder"})
            except httpx.HTTPError:
                return None
            return response.json()["run_id"] if response.status_code == 200 else None

        turns = [pool.submit(turn, number) for number in range(60)]
        concurrent.futures.wait(turns[:10])
        for pid in house.postgres():
            os.kill(pid, signal.SIGKILL)
        acknowledged = {run for one in turns if (run := one.result()) is not None}
        until(lambda: client.get("/ready").status_code == 200)
        until(lambda: rows(house, "select count(*) from agentflow.run where status in (0, 1)")[0][0] == 0)
        done = {str(run) for (run,) in rows(house, "select id from agentflow.run where status = 2")}
        assert acknowledged <= done
        assert len(acknowledged) >= 10
        doubled = "select run_id from agentflow.message group by run_id, role having count(*) > 1"
        assert rows(house, doubled) == []
