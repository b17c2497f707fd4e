"""Memories and documents leave as lines and come back whole."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agentflow.documents.chunks import chunks
from agentflow.documents.passages import passages
from agentflow.errors import BadInput, Forbidden
from agentflow.protocols import DOCUMENTS, Scope
from agentflow.records.memory.forget import Selector
from agentflow.records.memory.library import File
from agentflow.records.memory.lines import as_line
from agentflow.records.memory.rights import Change, Filter, Owner

ANN, BOB = Owner(0, "ann"), Owner(0, "bob")
HERS = Scope(0, DOCUMENTS, "ann")
MANUAL = "# Refunds\n\nMoney comes back within 30 days.\n\n# Shipping\n\nParcels leave on Mondays.\n"
LONG = "\n\n".join(f"# Rule {n}\n\nOnly {n} people may board boat {n}." for n in range(300))


async def lines(told: list[dict[str, object]]) -> AsyncIterator[bytes]:
    for one in told:
        yield as_line(one)


async def taken(desk, owner: Owner) -> list[dict[str, object]]:
    return [one async for one in desk.portable.export(owner)]


async def brought(desk, owner: Owner, told: list[dict[str, object]]) -> tuple[int, int]:
    counts = await desk.portable.take(owner, lines(told))
    return counts["imported"], counts["known"]


async def test_what_was_exported_comes_back_after_it_was_forgotten(desk) -> None:
    await desk.says("My dog is called Rex")
    number = (await desk.ids())[0]
    await desk.rights.change(ANN, number, Change(content="My dog is called Biscuit", pinned=True))
    told = await taken(desk, ANN)
    await desk.forgetting.forget(ANN, Selector("user"))
    assert await brought(desk, ANN, told) == (2, 0)
    back = (await desk.rights.listed(ANN, Filter()))[-1]
    assert (back["content"], back["pinned"], back["edited"]) == ("My dog is called Biscuit", True, True)
    assert (await desk.found("Biscuit"))[0] == "My dog is called Biscuit"
    assert await desk.counts_are_exact()


async def test_importing_again_or_what_is_there_changes_nothing(desk) -> None:
    await desk.says("My dog is called Rex")
    told = await taken(desk, ANN)
    assert await brought(desk, ANN, told) == (0, 2)
    assert await brought(desk, BOB, told) == (2, 0)
    assert await brought(desk, BOB, told) == (0, 2)
    assert await brought(desk, BOB, await taken(desk, BOB)) == (0, 2)
    assert len(await desk.ids(BOB)) == 2


async def test_a_broken_import_goes_on_in_the_same_session(desk) -> None:
    told = [
        {"uid": f"chat-{n}", "speaker": "Ann", "content": f"dog {n}", "session": "a", "place": n}
        for n in range(600)
    ]
    with pytest.raises(BadInput, match=r"Line 301: speaker: Field required"):
        await brought(desk, ANN, [*told[:300], {"content": "no speaker"}])
    kept = (await desk.rows("select count(*) from memory"))[0][0]
    assert kept == 256
    assert await brought(desk, ANN, told) == (600 - kept, kept)
    assert await desk.rows("select count(distinct session_id), count(*) from memory") == [(1, 600)]
    assert await desk.counts_are_exact()


async def test_sessions_stay_apart_in_a_database_that_never_had_one(desk) -> None:
    told = [
        {"uid": f"chat-{n}", "speaker": "Ann", "content": f"dog {n}", "session": n, "place": 0}
        for n in (1, 2, 9)
    ]
    assert await brought(desk, ANN, told) == (3, 0)
    assert await desk.rows("select count(distinct session_id) from memory") == [(3,)]


async def test_hidden_memories_travel_hidden(desk) -> None:
    await desk.says("My dog is called Rex")
    await desk.rights.change(ANN, (await desk.ids())[0], Change(hidden=True))
    assert await brought(desk, BOB, await taken(desk, ANN)) == (2, 0)
    assert await desk.found("Rex", user="bob") == ["You said: My dog is called Rex"]
    assert await desk.counts_are_exact()


async def test_an_import_that_breaks_off_goes_on(desk) -> None:
    told = [
        {"uid": f"chat-{n}", "speaker": "Ann", "content": f"dog {n}", "session": "a", "place": n}
        for n in range(9)
    ]
    await desk.says("hello")
    await desk.broken_off(brought(desk, ANN, told))
    assert await brought(desk, ANN, told) == (9, 0)
    assert await desk.counts_are_exact()


async def shelved(desk, text: str = MANUAL, scope: Scope = HERS, name: str = "manual.md"):
    file = File(name, "text/markdown", text.encode())
    return await desk.library.add(scope, file, chunks(passages(name, file.data)))


async def shelf(desk, owner: Owner = ANN) -> list[tuple[str, int, int]]:
    return [(one["name"], one["chunks"], one["bytes"]) for one in await desk.library.listed(owner)]


async def cited(desk, question: str, scope: Scope = HERS) -> dict[str, object]:
    return (await desk.home.search(scope, question, None, 5))[0]["cited"]


def in_order(told: list[dict[str, object]]) -> list[dict[str, object]]:
    return sorted(told, key=lambda one: str((one.get("uid"), one.get("name"), one.get("place"))))


async def test_documents_travel_with_their_citations(desk) -> None:
    await shelved(desk)
    told = await taken(desk, ANN)
    assert told[0] | {"digest": "", "updated_at": ""} == {
        "kind": "document", "name": "manual.md", "collection": "documents", "media_type": "text/markdown",
        "digest": "", "bytes": len(MANUAL), "chunks": 2, "updated_at": "",
    }  # fmt: skip
    assert [one | {"said_at": ""} for one in told[1:]] == [
        {"kind": "chunk", "document": "manual.md", "content": "Money comes back within 30 days.", "place": 0,
         "said_at": "", "part": 1, "heading": "Refunds", "line": 3},
        {"kind": "chunk", "document": "manual.md", "content": "Parcels leave on Mondays.", "place": 1,
         "said_at": "", "part": 2, "heading": "Shipping", "line": 7},
    ]  # fmt: skip


async def test_everything_comes_back_as_it_was(desk) -> None:
    run = await desk.says("My dog is called Rex")
    await desk.says("And my cat is called Tom")
    mine = await desk.ids()
    await desk.rights.change(ANN, mine[0], Change(content="My dog is called Biscuit", pinned=True))
    await shelved(desk)
    await shelved(desk, LONG, replace(HERS, role="coder"), "rules.md")
    chunk = (await desk.rights.listed(ANN, Filter(kind="chunk", text="Parcels")))[0]["id"]
    await desk.rights.change(ANN, chunk, Change(content="Parcels leave on Fridays.", hidden=True))
    told = await taken(desk, ANN)
    await desk.forgetting.forget(ANN, Selector("user"))
    assert await taken(desk, ANN) == []
    assert await brought(desk, ANN, told) == (306, 0)
    assert in_order(await taken(desk, ANN)) == in_order(told)
    assert run
    assert await cited(desk, "When does money come back?") == {
        "document": "manual.md", "part": 1, "heading": "Refunds", "line": 3,
        "document_id": (await desk.library.listed(ANN))[0]["id"],
    }  # fmt: skip
    assert (await cited(desk, "boat 217", replace(HERS, role="coder")))["heading"] == "Rule 217"
    assert await desk.counts_are_exact()


async def test_a_document_that_came_along_is_the_same_file_when_it_is_added_again(desk) -> None:
    await shelved(desk)
    told = await taken(desk, ANN)
    await desk.forgetting.forget(ANN, Selector("user"))
    await brought(desk, ANN, told)
    assert (await shelved(desk))["status"] == "unchanged"
    again = await shelved(desk, MANUAL.replace("Mondays", "Fridays"))
    assert (again["status"], again["kept"], again["new"], again["removed"]) == ("updated", 1, 1, 1)


async def test_a_document_that_is_there_is_not_doubled(desk) -> None:
    await shelved(desk)
    told = await taken(desk, ANN)
    assert await brought(desk, ANN, told) == (0, 2)
    assert await brought(desk, BOB, told) == (2, 0)
    assert await brought(desk, BOB, told) == (0, 2)
    assert await shelf(desk) == await shelf(desk, BOB) == [("manual.md", 2, len(MANUAL))]


async def test_an_older_document_is_replaced_and_a_newer_one_stays(desk) -> None:
    await shelved(desk)
    older = await taken(desk, ANN)
    await shelved(desk, MANUAL.replace("Mondays", "Fridays"))
    newer = await taken(desk, ANN)
    await brought(desk, BOB, older)
    assert await brought(desk, BOB, newer) == (1, 1)
    assert await brought(desk, BOB, older) == (0, 2)
    assert [one["content"] for one in (await taken(desk, BOB))[1:]] == [one["content"] for one in newer[1:]]


async def test_a_forgotten_chunk_comes_back_with_its_document(desk) -> None:
    await shelved(desk)
    told = await taken(desk, ANN)
    await desk.forgetting.forget(ANN, Selector("text", "Mondays"))
    partial = await taken(desk, ANN)
    assert ("digest" in partial[0], partial[0]["chunks"]) == (False, 1)
    assert await brought(desk, ANN, told) == (1, 1)
    assert await taken(desk, ANN) == told


async def test_a_document_whose_lines_break_off_is_completed_later(desk) -> None:
    await shelved(desk, LONG)
    told = await taken(desk, ANN)
    assert await brought(desk, BOB, told[:150]) == (149, 0)
    assert await brought(desk, BOB, told) == (151, 149)
    assert await taken(desk, BOB) == told
    assert await desk.counts_are_exact()


async def test_a_document_is_imported_whole_or_not_at_all(desk) -> None:
    await shelved(desk, LONG)
    told = await taken(desk, ANN)
    await shelved(desk, scope=replace(HERS, user="bob"), name="other.md")
    await desk.broken_off(brought(desk, BOB, told))
    assert await shelf(desk, BOB) == [("other.md", 2, len(MANUAL))]
    assert await desk.counts_are_exact()


async def test_everybodys_documents_travel_with_who_may_change_them(desk) -> None:
    await shelved(desk, scope=replace(HERS, user=None))
    assert await taken(desk, ANN) == []
    told = await taken(desk, replace(ANN, shared=True))
    assert (len(told), told[0]["everybody"]) == (3, True)
    with pytest.raises(Forbidden, match=r"Line 1: 'manual.md' is everybody's"):
        await brought(desk, BOB, told)
    assert await brought(desk, replace(BOB, shared=True), told) == (0, 2)


async def test_what_a_private_role_heard_stays_with_that_role(desk) -> None:
    line = {"uid": "a", "speaker": "Ann", "content": "My code is 4711", "only_role": "coder", "role": "coder"}
    assert await brought(desk, ANN, [line]) == (1, 0)
    assert await desk.found("code") == []
    (found,) = await desk.home.search(Scope(0, "conversations", "ann", "coder"), "code", None, 5)
    assert found["content"] == "My code is 4711"
    (again,) = await taken(desk, ANN)
    assert (again["only_role"], again["role"]) == ("coder", "coder")


async def test_a_session_that_came_with_its_summary_is_not_summed_up_again(desk) -> None:
    told = [
        {"uid": f"s/{n}", "speaker": "Ann", "content": f"dog {n}", "session": "a", "place": n}
        for n in range(8)
    ]
    summary = {"uid": "sum", "speaker": "summary", "kind": "summary", "content": "Dogs", "session": "b"}
    await brought(desk, ANN, [*told, {**summary, "sources": ["s/0", "s/7"]}])
    (summed,) = await desk.rows("select meta ->> 'of' from memory where kind = 4")
    assert [summed] == await desk.rows("select distinct session_id::text from memory where kind = 1")


async def test_lines_without_a_place_follow_one_another(desk) -> None:
    told = [{"uid": f"a{n}", "speaker": "Ann", "content": f"dog {n}"} for n in range(300)]
    assert await brought(desk, ANN, told) == (300, 0)
    assert await desk.rows("select min(seq), max(seq), count(distinct seq) from memory") == [(0, 299, 300)]
    assert await desk.counts_are_exact()


async def test_lines_may_share_a_place(desk) -> None:
    told = [{"uid": f"a{n}", "speaker": "Ann", "content": "dog", "place": 5} for n in range(3)]
    assert await brought(desk, ANN, [*told, told[0]]) == (3, 1)
    assert await desk.counts_are_exact()


async def test_uids_that_share_a_beginning_are_two_memories(desk) -> None:
    told = [{"uid": uid, "speaker": "Ann", "content": uid} for uid in ("a/b/1", "a/c/1", "a/b/2", "7", "/8")]
    assert await brought(desk, ANN, told) == (5, 0)
    assert await brought(desk, ANN, told) == (0, 5)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            {"kind": "chunk", "document": "a", "content": "x", "place": 0, "part": 1},
            "kind document that names 'a'",
        ),
        ({"kind": "document", "name": "a"}, "chunks: Field required"),
        ({"kind": "film", "speaker": "Ann", "content": "x"}, "kind: Input should be"),
        ({"speaker": "A\0nn", "content": "x"}, "speaker: String should match"),
        ({"speaker": "Ann", "content": "x", "session": 1 << 60}, "session"),
    ],
)
async def test_a_line_that_cannot_be_kept_is_named(desk, line, reason) -> None:
    with pytest.raises(BadInput, match=f"Line 1: .*{reason}"):
        await brought(desk, ANN, [line])
