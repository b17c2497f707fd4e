"""API keys in the database."""

from collections.abc import AsyncIterator

import pytest

from agentflow.errors import BadInput, Conflict, NotFound
from agentflow.protocols import Owner
from agentflow.records.connections import open_connections
from agentflow.records.keys import Key, Keys, digest_of


@pytest.fixture
async def keys(database: str) -> AsyncIterator[Keys]:
    connections = await open_connections(database, size=2)
    yield Keys(connections)
    await connections.close()


async def made(keys: Keys, name: str = "laptop", seconds: float | None = None) -> str:
    return await keys.create(name, tenant=3, user="ann", scopes=["chat"], seconds=seconds)


async def test_a_key_is_found_by_itself_and_stored_as_a_digest_only(keys: Keys) -> None:
    assert not await keys.any()
    key = await made(keys)
    found = await keys.find(key)
    assert found == Key(found.id if found else "", 3, "ann", "laptop", frozenset({"chat"}), digest_of(key))
    async with keys.connections.background() as connection:
        (stored,) = await (await connection.execute("select k::text from api_key k")).fetchall()
    assert key not in str(stored)
    assert len(key) >= 46
    assert await keys.any()


async def test_a_disabled_or_expired_key_opens_nothing(keys: Keys) -> None:
    first, second = await made(keys), await made(keys, "old", seconds=-1)
    await keys.disable("laptop", tenant=3)
    assert [await keys.find(one) for one in (first, second, "af_never")] == [None, None, None]
    assert [(one["name"], one["status"]) for one in await keys.listed()] == [
        ("laptop", "disabled"),
        ("old", "expired"),
    ]
    assert not await keys.any()


async def test_a_rotated_key_leaves_the_former_its_grace(keys: Keys) -> None:
    first = await made(keys)
    second = await keys.rotate("laptop", tenant=3, grace=60)
    third = await keys.rotate("laptop", tenant=3)
    found = [await keys.find(one) for one in (first, second, third)]
    assert [one is not None for one in found] == [False, False, True]
    assert found[2] is not None
    assert (found[2].user, found[2].scopes) == ("ann", frozenset({"chat"}))


async def test_a_name_is_in_use_once_per_tenant(keys: Keys) -> None:
    await made(keys)
    with pytest.raises(Conflict, match="'laptop' already"):
        await made(keys)
    await keys.create("laptop", tenant=4, user="bob", scopes=[])
    with pytest.raises(NotFound):
        await keys.rotate("other", tenant=3)
    with pytest.raises(NotFound):
        await keys.disable("laptop", tenant=5)


async def test_a_name_alone_is_enough_where_one_tenant_has_it(keys: Keys) -> None:
    await made(keys)
    assert await keys.find(await keys.rotate("laptop"))
    await keys.create("laptop", tenant=4, user="bob", scopes=[])
    with pytest.raises(BadInput, match=r"tenants 3, 4; say which: --tenant 3"):
        await keys.disable("laptop")
    await keys.disable("laptop", tenant=4)
    await keys.disable("laptop")
    assert not await keys.any()


async def test_a_rotated_key_is_good_for_as_long_as_the_former(keys: Keys) -> None:
    await made(keys, seconds=3600)
    await keys.rotate("laptop")
    former, newer = await keys.listed()
    assert (former["status"], newer["status"]) == ("expired", "in use")
    assert newer["expires_at"]


async def test_a_tenant_does_not_see_another_s_keys(keys: Keys) -> None:
    await made(keys)
    async with keys.connections.use(Owner(4)) as connection:
        assert await (await connection.execute("select from api_key")).fetchall() == []
