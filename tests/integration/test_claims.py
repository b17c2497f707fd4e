"""Idempotency keys that no run stands for, in the table: who carries a request out, and what is kept of it."""

import asyncio
import uuid
from dataclasses import replace

import pytest

from agentflow.errors import Busy, Conflict
from agentflow.protocols import Owner
from agentflow.records.claims import LARGEST, Answered, Claim, Claims
from agentflow.records.connections import Connections
from agentflow.records.memory.forget import Selector
from agentflow.records.memory.rights import Owner as Rightful

ANN = Owner(1, "ann")
DONE = Answered(200, [("content-type", "application/json")], b'{"id": 7}')


def asked(owner: Owner = ANN, *, for_: bytes = b"a thread") -> Claim:
    """A request of its own each time, with the one key."""
    return Claim(owner, "once", for_, uuid.uuid4())


async def aged(connections: Connections, age: str) -> None:
    async with connections.background() as connection:
        await connection.execute("update claim set at = at - %s::interval", (age,))


async def count(connections: Connections) -> int:
    async with connections.background() as connection:
        ((number,),) = await (await connection.execute("select count(*) from claim")).fetchall()
    return number


async def test_of_several_at_once_one_carries_it_out(connections: Connections) -> None:
    claims = Claims(connections)
    tried = await asyncio.gather(*[claims.claim(asked()) for _ in range(8)], return_exceptions=True)
    assert [one for one in tried if not isinstance(one, Busy)] == [None]
    assert {one.retry_after for one in tried if isinstance(one, Busy)} == {1}


async def test_what_was_answered_is_answered_again(connections: Connections) -> None:
    claims, first = Claims(connections), asked()
    assert await claims.claim(first) is None
    await claims.answer(first, DONE)
    assert await claims.claim(asked()) == DONE
    with pytest.raises(Conflict, match="'once' was used for another request; use a new key"):
        await claims.claim(asked(for_=b"a cron"))


@pytest.mark.parametrize("other", [Owner(1, "bob"), Owner(2, "ann")], ids=["user", "tenant"])
async def test_others_have_keys_of_their_own(connections: Connections, other: Owner) -> None:
    claims, first = Claims(connections), asked()
    await claims.claim(first)
    await claims.answer(first, DONE)
    assert await claims.claim(asked(other, for_=b"a cron")) is None


async def test_what_was_released_may_be_asked_for_again(connections: Connections) -> None:
    claims, first = Claims(connections), asked()
    await claims.claim(first)
    await claims.release(first)
    assert await claims.claim(asked(for_=b"a cron")) is None


async def test_who_died_is_followed_after_a_minute_and_says_nothing_more(connections: Connections) -> None:
    claims, dead, heir = Claims(connections), asked(), asked()
    await claims.claim(dead)
    await aged(connections, "59 seconds")
    with pytest.raises(Busy):
        await claims.claim(heir)
    await aged(connections, "2 seconds")
    assert await claims.claim(heir) is None
    await claims.answer(dead, DONE)
    await claims.release(dead)
    with pytest.raises(Busy):
        await claims.claim(asked())


async def test_who_lives_keeps_its_claim(connections: Connections) -> None:
    claims, first = Claims(connections), asked()
    await claims.claim(first)
    await aged(connections, "5 minutes")
    await claims.renew(first)
    with pytest.raises(Busy):
        await claims.claim(asked())


async def test_an_answer_that_is_too_large_is_known_but_not_kept(connections: Connections) -> None:
    claims, first = Claims(connections), asked()
    await claims.claim(first)
    await claims.answer(first, replace(DONE, body=b"x" * (LARGEST + 1)))
    assert await claims.claim(asked()) == replace(DONE, body=None)


async def test_after_a_day_the_key_is_free_and_the_row_goes(connections: Connections) -> None:
    claims, first = Claims(connections), asked()
    await claims.claim(first)
    await claims.answer(first, DONE)
    await claims.sweep()
    assert await count(connections) == 1
    await aged(connections, "25 hours")
    again = asked(for_=b"a cron")
    assert await claims.claim(again) is None
    await claims.answer(again, DONE)
    await aged(connections, "25 hours")
    await claims.sweep()
    assert await count(connections) == 0


async def test_a_kept_answer_goes_with_what_was_forgotten(desk) -> None:
    claims, mine, theirs = Claims(desk.connections), asked(Owner(0, "ann")), asked(Owner(0, "bob"))
    for one in (mine, theirs):
        await desk.says("the orchard behind the mill", user=str(one.owner.user))
        await claims.claim(one)
        await claims.answer(one, replace(DONE, body=b"the orchard behind the mill"))
    await desk.forgetting.forget(Rightful(0, "ann"), Selector("text", "orchard"))
    assert await claims.claim(asked(mine.owner)) is None
    assert (await claims.claim(asked(theirs.owner))).status == 200
