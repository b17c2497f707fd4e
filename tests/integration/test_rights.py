"""The owner's rights on real tables: other people's memories do not exist, and forgotten is gone."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agentflow.errors import BadInput, NotFound
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.records.feedback import Feedback
from agentflow.records.forget import Selector
from agentflow.records.rights import Change, Filter, Owner
from agentflow.turn import Json

USAGE = {"prompt_tokens": 0, "completion_tokens": 0}
ANN, BOB = Owner(0, "ann"), Owner(0, "bob")
SECRET = "zweiundvierzig"


def recollections(memories: list[Json]) -> list[Json]:
    """As recall shows them to a turn."""
    return [
        {
            "id": one["id"],
            "collection": "conversations",
            "speaker": one["speaker"],
            "said_at": one["said_at"],
            "score": 1.0,
            "content": one["content"],
            "why": {"matched": [SECRET]},
        }
        for one in memories
    ]


async def test_a_list_is_the_users_own_newest_first_and_filtered(desk) -> None:
    await desk.says("My dog is called Rex")
    await desk.says("Bob likes chess", user="bob")
    await desk.says("My cat is called Tom")
    mine = await desk.rights.listed(ANN, Filter(limit=3))
    assert [one["content"] for one in mine] == [
        "You said: My cat is called Tom",
        "My cat is called Tom",
        "You said: My dog is called Rex",
    ]
    rest = await desk.rights.listed(ANN, Filter(before=mine[-1]["id"]))
    assert [one["content"] for one in rest] == ["My dog is called Rex"]
    assert len(await desk.rights.listed(ANN, Filter(text="CALLED rex"))) == 2
    assert await desk.rights.listed(ANN, Filter(kind="summary")) == []


async def test_another_users_memory_does_not_exist(desk) -> None:
    await desk.says("My dog is called Rex")
    number = (await desk.ids())[0]
    for refused in (
        desk.rights.shown(BOB, number),
        desk.rights.change(BOB, number, Change(pinned=True)),
        desk.rights.shown(replace(ANN, tenant=1), number),
    ):
        with pytest.raises(NotFound, match=f"There is no memory {number} for this user"):
            await refused
    receipt = await desk.forgetting.forget(BOB, Selector("ids", [number]))
    assert receipt["counts"]["memories"] == 0
    assert number in await desk.ids()


async def test_an_edited_memory_is_found_by_its_new_words_only_and_keeps_its_history(desk) -> None:
    await desk.says("My dog is called Rex")
    number = (await desk.ids())[0]
    changed = await desk.rights.change(ANN, number, Change(content="My dog is called Biscuit"))
    assert (changed["content"], changed["edited"]) == ("My dog is called Biscuit", True)
    assert [one["content"] for one in changed["history"]] == ["My dog is called Rex"]
    assert (await desk.found("Biscuit"))[0] == "My dog is called Biscuit"
    assert number not in [one["id"] for one in await desk.rights.listed(ANN, Filter(text="Rex"))]
    assert await desk.counts_are_exact()


async def test_an_edited_memory_is_embedded_anew(desk) -> None:
    await desk.says("My dog is called Rex")
    await desk.outbox.drain()
    number = (await desk.ids())[0]
    assert not (await desk.rights.change(ANN, number, Change(content="Quite another")))["embedded"]
    await desk.outbox.drain()
    assert (await desk.rights.shown(ANN, number))["embedded"]
    vector = (await FakeEmbedder().embed(["Quite another"]))[0]
    assert (await desk.found("?", vector=vector))[0] == "Quite another"


async def test_a_hidden_memory_is_in_no_index_and_comes_back(desk) -> None:
    await desk.says("My dog is called Rex")
    number = (await desk.ids())[0]
    await desk.rights.change(ANN, number, Change(hidden=True))
    assert await desk.found("Rex") == ["You said: My dog is called Rex"]
    assert await desk.counts_are_exact()
    await desk.rights.change(ANN, number, Change(hidden=False))
    assert set(await desk.found("Rex")) == {"My dog is called Rex", "You said: My dog is called Rex"}
    assert await desk.counts_are_exact()


async def test_pin_and_expiry_are_kept_apart(desk) -> None:
    await desk.says("My dog is called Rex")
    number, end = (await desk.ids())[0], datetime(2030, 1, 1, tzinfo=UTC)
    await desk.rights.change(ANN, number, Change(expires=True, expires_at=end))
    changed = await desk.rights.change(ANN, number, Change(pinned=True))
    assert (changed["pinned"], changed["expires_at"]) == (True, "2030-01-01T00:00:00+00:00")
    assert (await desk.rights.change(ANN, number, Change(expires=True)))["expires_at"] is None


@pytest.mark.parametrize("content", ["", "  ", "a\0b", "word " * 600])
async def test_a_wording_that_cannot_be_kept_is_refused(desk, content: str) -> None:
    with pytest.raises(BadInput, match="content"):
        await desk.rights.change(ANN, 1, Change(content=content))


async def test_a_forgotten_memory_leaves_no_text_in_any_table(desk) -> None:
    run = await desk.says(f"My number is {SECRET}")
    mine = await desk.rights.listed(ANN, Filter())
    await desk.says("What is my number?", result={"memories": recollections(mine)})
    await desk.rights.change(ANN, mine[0]["id"], Change(content=f"Her number is {SECRET}"))
    await Feedback(desk.connections).give(run, "coder", owner=ANN.seen, accepted=True, chars=999)
    await desk.outbox.drain()
    assert set(await desk.holding(SECRET)) >= {
        "agentflow.memory_default", "agentflow.message", "agentflow.run", "agentflow.feedback", "agentflow.word",
    }  # fmt: skip
    receipt = await desk.forgetting.forget(ANN, Selector("text", SECRET))
    assert await desk.holding(SECRET) == []
    assert receipt["counts"] | {"postings": 0, "words": 0} == {
        "memories": 2, "postings": 0, "words": 0, "documents": 0, "turns": 2, "threads": 0, "feedback": 1,
        "checkpoints": 0,
    }  # fmt: skip
    assert await desk.counts_are_exact()
