"""Documents on real tables: cited, replaced where they changed, found where they were put."""

import asyncio
from dataclasses import replace

import pytest

from agentflow.documents.chunks import Chunk, chunks
from agentflow.documents.passages import passages
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.memory.postgres import PostgresMemory
from agentflow.protocols import DOCUMENTS, Owner, Scope
from agentflow.records.connections import Connections
from agentflow.records.memory import rights
from agentflow.records.memory.forget import Forgetting, Selector
from agentflow.records.memory.library import File, Library
from agentflow.records.memory.outbox import Outbox
from agentflow.records.memory.scopes import Scopes

ANN = rights.Owner(0, "ann")
HERS = Scope(0, DOCUMENTS, "ann")
THREAD = "00000000-0000-0000-0000-000000000001"
MANUAL = "# Refunds\n\nMoney comes back within 30 days.\n\n# Shipping\n\nParcels leave on Mondays.\n"


@pytest.fixture
def scopes(connections: Connections) -> Scopes:
    return Scopes(connections, {}, FakeEmbedder.id, FakeEmbedder.dim)


@pytest.fixture
def library(connections: Connections, scopes: Scopes) -> Library:
    return Library(connections, scopes)


@pytest.fixture
def home(connections: Connections, scopes: Scopes) -> PostgresMemory:
    return PostgresMemory(connections, scopes)


async def added(library: Library, text: str, scope: Scope = HERS, name: str = "manual.md"):
    return await library.add(
        scope, File(name, "text/markdown", text.encode()), chunks(passages(name, text.encode()))
    )


async def found(home: PostgresMemory, question: str, scope: Scope = HERS):
    return await home.search(scope, question, None, 5)


async def test_a_chunk_is_cited(library: Library, home: PostgresMemory) -> None:
    told = await added(library, MANUAL)
    best = (await found(home, "When does money come back?"))[0]
    assert (best["speaker"], best["content"]) == ("manual.md > Refunds", "Money comes back within 30 days.")
    assert best["cited"] == {
        "document": "manual.md", "document_id": told["id"], "part": 1, "heading": "Refunds", "line": 3,
    }  # fmt: skip


async def test_a_file_added_again_changes_nothing(library: Library) -> None:
    first = await added(library, MANUAL)
    again = await added(library, MANUAL)
    assert (first["status"], first["new"]) == ("added", 2)
    assert (again["status"], again["id"], again["kept"], again["new"]) == ("unchanged", first["id"], 2, 0)
    assert await library.known(HERS, File("manual.md", "", MANUAL.encode()))


async def test_a_changed_file_keeps_what_stayed_with_its_vectors(
    library: Library, home: PostgresMemory, connections: Connections
) -> None:
    await added(library, MANUAL)
    await Outbox(connections, FakeEmbedder()).drain()
    told = await added(library, "# Preface\n\nHello.\n\n" + MANUAL.replace("Mondays", "Fridays"))
    assert (told["status"], told["kept"], told["new"], told["removed"]) == ("updated", 1, 2, 1)
    assert await found(home, "Mondays") == []
    assert (await found(home, "Money"))[0]["cited"]["line"] == 7
    (listed,) = await library.listed(ANN)
    assert (listed["chunks"], listed["owed"]) == (3, 2)


async def test_a_repeated_paragraph_is_as_many_chunks(library: Library) -> None:
    told = await added(library, "# A\n\nSame.\n\n# A\n\nSame.\n")
    assert told["new"] == 2
    assert (await added(library, "# A\n\nSame.\n"))["removed"] == 1


async def test_a_turn_has_the_documents_of_its_user_role_and_thread(
    library: Library, home: PostgresMemory
) -> None:
    everybody, role = Scope(0, DOCUMENTS, None), replace(HERS, role="coder")
    thread, bobs = replace(HERS, thread=THREAD), Scope(0, DOCUMENTS, "bob")
    for scope in (HERS, everybody, role, thread, bobs):
        await added(library, MANUAL, scope)

    async def beside(**turn: str | None) -> list[Scope]:
        given = {"role": None, "thread": None, **turn}
        return list((await home.beside(Owner(0, "ann"), **given, collections=["conversations"])).scopes)

    assert await beside() == [HERS, everybody]
    assert await beside(role="coder") == [HERS, everybody, role]
    assert await beside(role="artist", thread=THREAD) == [HERS, everybody, thread]


async def test_another_users_documents_are_not_listed(library: Library) -> None:
    await added(library, MANUAL)
    assert await library.listed(replace(ANN, user="bob")) == []


async def test_a_forgotten_document_is_read_again_when_it_is_added_again(
    library: Library, home: PostgresMemory, connections: Connections
) -> None:
    told = await added(library, MANUAL)
    receipt = await Forgetting(connections).forget(ANN, Selector("document", told["id"]))
    assert (receipt["counts"]["documents"], receipt["counts"]["memories"]) == (1, 2)
    assert await library.listed(ANN) == []
    assert not await library.known(HERS, File("manual.md", "", MANUAL.encode()))
    assert (await added(library, MANUAL))["new"] == 2


async def test_a_forgotten_chunk_comes_back_with_its_file(
    library: Library, home, connections: Connections
) -> None:
    await added(library, MANUAL)
    chunk = (await found(home, "Money"))[0]["id"]
    await Forgetting(connections).forget(ANN, Selector("ids", [chunk]))
    assert not await library.known(HERS, File("manual.md", "", MANUAL.encode()))
    assert (await added(library, MANUAL))["new"] == 1


async def test_a_thread_takes_its_documents_along(library: Library, connections: Connections) -> None:
    await added(library, MANUAL, replace(HERS, thread=THREAD))
    await Forgetting(connections).forget(ANN, Selector("thread", THREAD))
    assert await library.listed(ANN) == []


async def test_a_document_that_breaks_off_leaves_nothing(library: Library, home: PostgresMemory) -> None:
    file = File("manual.md", "", b"x")
    await added(library, MANUAL)
    bad = [Chunk("Money is gone.", 1), *(Chunk(f"part {n}", n) for n in range(2, 300)), Chunk("a\0b", 300)]
    with pytest.raises(Exception, match="NUL"):
        await library.add(HERS, file, bad)
    assert (await found(home, "Money"))[0]["content"] == "Money comes back within 30 days."
    assert (await library.listed(ANN))[0]["chunks"] == 2


async def test_forgetting_waits_for_whoever_pays_a_debt_before_it_takes_the_memory(
    library: Library, connections: Connections
) -> None:
    told = await added(library, "Money comes back within 30 days.")
    chosen = Selector("document", told["id"])
    async with connections.background() as paying, paying.transaction():
        await paying.execute("select from outbox for update")
        forgetting = asyncio.create_task(Forgetting(connections).forget(ANN, chosen))
        await somebody_waits(connections)
        taken = await paying.execute("select id from memory for update skip locked")
        assert taken.rowcount == 1
    assert (await forgetting)["counts"]["memories"] == 1


async def somebody_waits(connections: Connections) -> None:
    async with connections.background() as connection:
        while (await connection.execute("select from pg_locks where not granted")).rowcount == 0:
            await connection.execute("select pg_sleep(0.01)")
