"""Who follows a run from another process hears it to its last event, though the ledger ends a turn before that."""

from agentflow.records.protocol.runs import Runs

NOTED = "update thread set state_at = now() where id = (select thread_id from run where id = %s)"
ENDED = "update run set work = '{}', ended_at = now() - %s * interval '1 second' where id = %s"


async def test_a_turn_goes_on_until_its_threads_state_is_noted(desk) -> None:
    runs, run = Runs(desk.connections), await desk.says("hello")
    async with desk.connections.background() as connection:
        await connection.execute(ENDED, (0, run))
        assert await runs.watch(run, tenant=0)
        assert await runs.going(run, tenant=0)
        await connection.execute(NOTED, (run,))
        assert not await runs.watch(run, tenant=0)
        assert not await runs.going(run, tenant=0)


async def test_what_a_dead_process_did_not_note_is_not_waited_for(desk) -> None:
    runs, run = Runs(desk.connections), await desk.says("hello")
    async with desk.connections.background() as connection:
        await connection.execute(ENDED, (11, run))
    assert not await runs.going(run, tenant=0)
