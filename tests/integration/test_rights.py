"""The owner's rights on real tables: other people's memories do not exist, and forgotten is gone."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest
from psycopg.types.json import Jsonb

from agentflow.errors import BadInput, LeaseLost, NotFound
from agentflow.fakes.embedder import FakeEmbedder
from agentflow.protocols import NewMemory, Outcome, Request, Scope
from agentflow.records.checkpoints import TurnSaver
from agentflow.records.feedback import Feedback
from agentflow.records.keys import Keys
from agentflow.records.memory.forget import Selector
from agentflow.records.memory.retention import Retention
from agentflow.records.memory.rights import Change, Filter, Owner
from agentflow.records.memory.traces import KEPT
from agentflow.records.protocol.store import UserStore
from agentflow.tables import metadata
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
        "checkpoints": 0, "keys": 0,
    }  # fmt: skip
    assert await desk.counts_are_exact()


async def test_only_the_forgotten_piece_leaves_a_long_message(desk) -> None:
    await desk.says("\n\n".join(["The weather was fine. " * 30, f"My number is {SECRET}. " * 20]))
    chosen = await desk.rights.listed(ANN, Filter(text=SECRET))
    await desk.forgetting.forget(ANN, Selector("ids", [one["id"] for one in chosen]))
    messages = [str(text) for (text,) in await desk.rows("select content from message order by seq")]
    assert "The weather was fine" in messages[0]
    assert await desk.holding(SECRET) == []


async def test_a_forgotten_thread_takes_its_turns_and_checkpoints_along(desk) -> None:
    run = await desk.says(f"My number is {SECRET}")
    await desk.says("Keep this")
    (thread,) = (await desk.rows("select thread_id::text from run where id = %s", run))[0]
    config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    values = {"channel_values": {"a": SECRET}, "channel_versions": {"a": "1"}}
    checkpoint = {"v": 4, "id": "1", "ts": "", **values, "versions_seen": {}}
    await TurnSaver(desk.connections, ANN.seen).aput(config, checkpoint, {}, {"a": "1"})
    receipt = await desk.forgetting.forget(ANN, Selector("thread", thread))
    assert await desk.holding(SECRET) == []
    assert await desk.holding(str(thread)) == []
    assert (receipt["counts"]["threads"], receipt["counts"]["turns"], receipt["counts"]["checkpoints"]) == (
        1,
        1,
        1,
    )
    assert set(await desk.found("Keep")) == {"Keep this", "You said: Keep this"}


async def test_forgetting_a_user_leaves_the_others(desk) -> None:
    await desk.says(f"My number is {SECRET}")
    await desk.says("Bob likes chess", user="bob")
    await desk.outbox.drain()
    await desk.forgetting.forget(ANN, Selector("user"))
    assert await desk.holding(SECRET) == []
    assert await desk.ids() == []
    assert len(await desk.ids(BOB)) == 2
    assert await desk.rows("select user_ref from thread") == [("bob",)]
    assert await desk.counts_are_exact()
    await desk.says("Here again")
    assert await desk.found("again") == ["Here again", "You said: Here again"]


async def test_a_forgotten_user_has_no_sets_and_no_keys(desk) -> None:
    keys = Keys(desk.connections)
    await keys.create("hers", tenant=0, user="ann", scopes=["chat"])
    kept = await keys.create("his", tenant=0, user="bob", scopes=["chat"])
    await desk.says("My dog is called Rex")
    await desk.says("Bob likes chess", user="bob")
    receipt = await desk.forgetting.forget(ANN, Selector("user"))
    assert receipt["counts"]["keys"] == 1
    assert await desk.rows("select user_ref from scope") == [("bob",)]
    assert [one["name"] for one in await keys.listed()] == ["his"]
    assert (await keys.find(kept)).user == "bob"


async def test_a_process_that_remembers_a_forgotten_set_writes_into_a_new_one(desk) -> None:
    await desk.says("My dog is called Rex")
    other = replace(desk.scopes, known=dict(desk.scopes.known))
    await desk.forgetting.forget(ANN, Selector("user"))
    desk.ledger = replace(desk.ledger, scopes=other)
    await desk.says("My cat is called Tom")
    assert await desk.rows("select n_docs from scope") == [(2,)]
    assert await desk.counts_are_exact()


async def test_a_forgotten_thread_takes_its_set_along(desk) -> None:
    run = await desk.says("My dog is called Rex")
    (thread,) = (await desk.rows("select thread_id::text from run where id = %s", run))[0]
    await desk.scopes.of(Scope(0, "documents", "ann", None, thread))
    await desk.forgetting.forget(ANN, Selector("thread", thread))
    assert await desk.rows("select thread_id from scope") == [(None,)]


@pytest.mark.parametrize("change", [Change(hidden=True), Change(content="Something else")])
async def test_words_of_what_was_hidden_or_reworded_before_go_too(desk, change) -> None:
    await desk.says(f"My number is {SECRET}")
    await desk.outbox.drain()
    for number in await desk.ids():
        await desk.rights.change(ANN, number, change)
    await desk.forgetting.forget(ANN, Selector("ids", await desk.ids()))
    assert await desk.rows("select word from word where word = %s", SECRET) == []


async def test_what_graphs_keep_for_a_user_goes_with_the_user(desk) -> None:
    run = await desk.says("hello")
    await desk.rows(
        "insert into run_event (run_id, seq, name, data, user_ref) values (%s, 1, 'values', %s, 'ann') returning 1",
        run, SECRET.encode(),
    )  # fmt: skip
    await UserStore(desk.connections, ANN.seen).aput(("notes",), "n", {"text": SECRET})
    await UserStore(desk.connections, BOB.seen).aput(("notes",), "n", {"text": "chess"})
    await desk.forgetting.forget(ANN, Selector("user"))
    assert await desk.holding(SECRET) == []
    assert await UserStore(desk.connections, BOB.seen).aget(("notes",), "n") is not None


async def test_a_text_goes_from_failed_turns_and_states_too(desk) -> None:
    run = await desk.says(f"My number is {SECRET}", result={"output": "ok"})
    failed = await desk.ledger.accept(Request(text=f"Again: {SECRET.upper()}", user="ann"))
    await desk.ledger.fail(failed.lease, {"message": "engine down"}, final=True)
    await desk.rows(
        "with t as (update thread set state = %s) update run set work = %s where id = %s returning 1",
        Jsonb({"messages": [f"My number is {SECRET}"]}), Jsonb({"input": f"My number is {SECRET}"}), run,
    )  # fmt: skip
    receipt = await desk.forgetting.forget(ANN, Selector("text", SECRET))
    assert await desk.holding(SECRET) == []
    assert receipt["counts"]["turns"] == 2


def test_every_table_is_known_to_forgetting() -> None:
    named = {"thread_id", "run_id", "user_ref"}
    unknown = [
        one.name for one in metadata.sorted_tables if one.name not in KEPT and not named & set(one.c.keys())
    ]
    assert unknown == []


async def test_forgetting_a_tenant_leaves_nothing_of_it(desk) -> None:
    await desk.says(f"My number is {SECRET}")
    await desk.says(f"Mine is {SECRET} too", user="bob")
    await desk.forgetting.forget(replace(ANN, shared=True), Selector("tenant"))
    assert await desk.holding(SECRET) == []
    assert await desk.rows("select id from thread union all select id from run") == []


async def test_what_was_derived_goes_with_its_source(desk) -> None:
    await desk.says("My dog is called Rex")
    source, summary = await desk.ids()
    await desk.rows(
        "with k as (update memory set kind = 4 where id = %s) insert into link (item_id, source_id) "
        "values (%s, %s) returning 1",
        summary, summary, source,
    )  # fmt: skip
    await desk.forgetting.forget(ANN, Selector("ids", [source]))
    assert await desk.ids() == []
    assert await desk.rows("select 1 from link") == []


async def test_a_preview_counts_and_changes_nothing(desk) -> None:
    await desk.says("My dog is called Rex")
    told = await desk.forgetting.forget(ANN, Selector("text", "rex"), preview=True)
    assert (told["preview"], told["counts"]["memories"]) == (True, 2)
    assert len(await desk.ids()) == 2
    assert await desk.forgetting.receipts(ANN) == []


async def test_a_receipt_is_its_owners_and_holds_no_text(desk) -> None:
    await desk.says(f"My number is {SECRET}")
    receipt = await desk.forgetting.forget(ANN, Selector("text", SECRET))
    assert await desk.forgetting.receipts(ANN) == [
        {key: value for key, value in receipt.items() if key != "preview"}
    ]
    assert await desk.forgetting.receipts(BOB) == []
    assert (receipt["by"], receipt["status"], len(receipt["digest"])) == ("text", "done", 64)


PLACE = "insert into vector_place (collection_id, place, lasting, written, worker) values (1, 'faiss', true, 0, '')"
HEARD = "update vector_place set (written, log_id) = (select written, id from vector_log order by id desc limit 1)"


async def test_a_receipt_is_pending_until_every_place_of_vectors_has_heard(desk) -> None:
    await desk.says("My dog is called Rex")
    await desk.outbox.drain()
    async with desk.connections.background() as connection:
        await connection.execute(PLACE)
        receipt = await desk.forgetting.forget(ANN, Selector("text", "Rex"))
        assert (receipt["status"], receipt["pending"]) == ("pending", 1)
        await connection.execute(HEARD)
    (later,) = await desk.forgetting.receipts(ANN)
    assert (later["status"], later["pending"]) == ("done", 0)


async def test_a_vector_that_is_owed_to_a_forgotten_memory_is_owed_no_more(desk) -> None:
    await desk.says("My dog is called Rex")
    await desk.forgetting.forget(ANN, Selector("text", "Rex"))
    assert (await desk.outbox.waiting())[0] == 0


async def test_words_that_others_use_stay(desk) -> None:
    await desk.says("The orchard blooms")
    await desk.says("An orchard again", user="bob")
    await desk.outbox.drain()
    await desk.forgetting.forget(ANN, Selector("user"))
    assert ("orchard",) in await desk.rows("select word from word")
    assert ("blooms",) not in await desk.rows("select word from word")


def test_the_digest_tells_two_forgettings_apart() -> None:
    assert Selector("ids", [1]).digest != Selector("ids", [2]).digest
    assert Selector("thread", UUID(int=1)).digest == Selector("thread", UUID(int=1)).digest
    assert np.frombuffer(Selector("user").digest, np.uint8).shape == (32,)


async def test_a_turn_that_had_recalled_it_and_ends_later_loses_its_copy(desk) -> None:
    await desk.says(f"My number is {SECRET}")
    mine = await desk.rights.listed(ANN, Filter())
    under_way = (await desk.ledger.accept(Request(text="What is my number?", user="ann"))).lease
    await desk.forgetting.forget(ANN, Selector("text", SECRET))
    await desk.ledger.finish(
        under_way, Outcome("ok", {"memories": recollections(mine)}, None, None, USAGE, 1, [])
    )
    assert await desk.holding(SECRET) == ["agentflow.run"]
    async with desk.connections.background() as connection:
        await connection.execute("update outbox set not_before = now() where kind = 'forget'")
    await Retention(desk.connections, desk.forgetting, {}, None).sweep()
    assert await desk.holding(SECRET) == []


async def test_a_turn_of_a_forgotten_thread_ends_in_nothing(desk) -> None:
    lease = (await desk.ledger.accept(Request(text=f"My number is {SECRET}", user="ann"))).lease
    await desk.forgetting.forget(ANN, Selector("thread", lease.thread_id))
    item = NewMemory("conversations", 0, "user", f"My number is {SECRET}")
    with pytest.raises((LeaseLost, NotFound)):
        await desk.ledger.finish(lease, Outcome(SECRET, {}, None, None, USAGE, 1, [item]))
    assert await desk.holding(SECRET) == []


async def test_a_forgetting_that_breaks_off_has_forgotten_nothing(desk) -> None:
    await desk.says("My dog is called Rex")
    await desk.broken_off(desk.forgetting.forget(ANN, Selector("user")))
    assert len(await desk.ids()) == 2
    assert await desk.counts_are_exact()
    assert (await desk.forgetting.forget(ANN, Selector("user")))["counts"]["memories"] == 2


async def test_an_edit_that_breaks_off_leaves_the_former_wording_found(desk) -> None:
    await desk.says("My dog is called Rex")
    number = (await desk.ids())[0]
    await desk.broken_off(desk.rights.change(ANN, number, Change(content="My cat is called Tom")))
    assert "My dog is called Rex" in await desk.found("Rex")
    assert await desk.counts_are_exact()
