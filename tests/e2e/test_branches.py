"""Editing and regenerating through checkpoints, as chat front ends do it with the protocol's own SDK."""

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError, UnprocessableEntityError

pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def served(founded) -> str:
    house = founded("egress: {allow: [127.0.0.1]}\n")
    house.start().close()
    return house.address


def say(text: str, number: str) -> dict:
    return {"messages": [{"type": "human", "content": text, "id": number}]}


def ids(values: dict) -> list[str]:
    return [one["id"] for one in values["messages"]]


def asked(values: dict) -> list[str]:
    return [one["content"] for one in values["messages"] if one["type"] == "human"]


async def spoken(client: LangGraphClient, *texts: str) -> str:
    thread = (await client.threads.create())["thread_id"]
    for number, text in enumerate(texts):
        await client.runs.wait(thread, "agent", input=say(text, f"h{number}"))
    return thread


async def remembered(http: httpx.AsyncClient, text: str) -> list[str]:
    found = (await http.get("/memory/search", params={"q": text, "k": 50})).json()["memories"]
    return [one["content"] for one in found if text in one["content"]]


async def parent_of(client: LangGraphClient, thread: str, message: str) -> dict:
    """The checkpoint before the oldest state that shows a message: what front ends edit and regenerate from."""
    history = await client.threads.get_history(thread, limit=1000)
    first = [state for state in history if message in ids(state["values"])][-1]
    return {key: first["parent_checkpoint"][key] for key in ("checkpoint_id", "checkpoint_ns")}


async def test_the_history_is_one_line_from_the_beginning(client) -> None:
    thread = await spoken(client, "Write python code", "What is justice?")
    history = await client.threads.get_history(thread, limit=1000)
    assert [len(state["values"]["messages"]) for state in history] == [4, 3, 2, 1, 0]
    parents = [state["parent_checkpoint"] for state in history]
    assert parents == [*[state["checkpoint"] for state in history[1:]], None]
    for state in history:
        found = await client.threads.get_state(thread, checkpoint=state["checkpoint"])
        assert (found["values"]["messages"], found["parent_checkpoint"]) == (
            state["values"]["messages"],
            state["parent_checkpoint"],
        )


async def test_history_is_read_in_pages(client) -> None:
    thread = await spoken(client, "Write python code", "What is justice?")
    whole = await client.threads.get_history(thread, limit=1000)
    for place, state in enumerate(whole):
        rest = await client.threads.get_history(
            thread, limit=1000, before={"configurable": state["checkpoint"]}
        )
        assert [one["checkpoint_id"] for one in rest] == [one["checkpoint_id"] for one in whole[place + 1 :]]


@pytest.mark.parametrize(
    ("edited", "left"), [("h0", ["What is truth?"]), ("h1", ["Write python code", "What is truth?"])]
)
async def test_an_edited_message_begins_a_branch(client, edited, left) -> None:
    thread = await spoken(client, "Write python code", "What is justice?")
    place = await parent_of(client, thread, edited)
    values = await client.runs.wait(thread, "agent", input=say("What is truth?", "new"), checkpoint=place)
    state = await client.threads.get_state(thread)
    assert asked(values) == asked(state["values"]) == left
    assert ids(values) == ids(state["values"])
    assert asked((await client.threads.get(thread))["values"]) == left
    later = await client.runs.wait(thread, "agent", input=say("Go on", "later"))
    assert asked(later) == [*left, "Go on"]


async def test_an_answer_is_given_again_for_the_same_message(client) -> None:
    thread = await spoken(client, "Write python code", "What is justice?")
    before = await client.threads.get_state(thread)
    answer = ids(before["values"])[-1]
    place = await parent_of(client, thread, answer)
    events = [
        one
        async for one in client.runs.stream(
            thread, "agent", input=None, checkpoint=place, stream_mode=["values", "messages-tuple"]
        )
    ]
    told = next(one.data[0]["id"] for one in events if one.event == "messages")
    final = [one.data for one in events if one.event == "values"][-1]
    assert ids(final) == [*ids(before["values"])[:-1], told]
    assert told != answer
    assert ids((await client.threads.get_state(thread))["values"]) == ids(final)
    history = await client.threads.get_history(thread, limit=1000)
    siblings = [one for one in history if one["parent_checkpoint_id"] == place["checkpoint_id"]]
    assert [ids(one["values"])[-1] for one in siblings] == [told, answer]


async def test_the_other_branch_can_be_gone_on_with(client) -> None:
    thread = await spoken(client, "Write python code")
    first = await client.threads.get_state(thread)
    place = await parent_of(client, thread, "h0")
    await client.runs.wait(thread, "agent", input=say("What is truth?", "new"), checkpoint=place)
    values = await client.runs.wait(
        thread, "agent", input=say("Go on", "later"), checkpoint_id=first["checkpoint"]["checkpoint_id"]
    )
    assert asked(values) == ["Write python code", "Go on"]


async def test_without_input_the_last_answer_is_given_again(client) -> None:
    thread = await spoken(client, "Write python code")
    assert asked(await client.runs.wait(thread, "agent", input=None)) == ["Write python code"]
    assert asked(await client.runs.wait(thread, "agent", input={})) == ["Write python code"]


async def test_a_message_at_the_last_checkpoint_goes_on(client) -> None:
    thread = await spoken(client, "Write python code")
    (head,) = await client.threads.get_history(thread, limit=1)
    values = await client.runs.wait(thread, "agent", input=say("Go on", "x"), checkpoint=head["checkpoint"])
    assert asked(values) == ["Write python code", "Go on"]


async def test_there_must_be_something_to_answer_again(client) -> None:
    thread = (await client.threads.create())["thread_id"]
    with pytest.raises(UnprocessableEntityError, match="no message to answer again"):
        await client.runs.create(thread, "agent", input=None)
    with pytest.raises(UnprocessableEntityError, match="no checkpoint"):
        await client.runs.create(thread, "agent", input=say("hi", "x"), checkpoint_id=thread[::-1])


async def test_what_was_replaced_is_not_remembered(client, http) -> None:
    thread = await spoken(client, "My parrot is called Xanthippe")
    place = await parent_of(client, thread, "h0")
    await client.runs.wait(thread, "agent", input=say("My parrot is called Zeno", "new"), checkpoint=place)
    assert await remembered(http, "Xanthippe") == []
    assert len(await remembered(http, "Zeno")) >= 1


async def test_a_copy_has_the_branches(client) -> None:
    thread = await spoken(client, "Write python code", "What is justice?")
    place = await parent_of(client, thread, "h1")
    await client.runs.wait(thread, "agent", input=say("What is truth?", "new"), checkpoint=place)
    copy = (await client.threads.copy(thread))["thread_id"]
    assert asked((await client.threads.get_state(copy))["values"]) == ["Write python code", "What is truth?"]
    history = await client.threads.get_history(copy, limit=1000)
    assert [len(one["values"]["messages"]) for one in history] == [4, 3, 4, 3, 2, 1, 0]


async def test_a_copy_of_a_copy_has_the_turns_values(client) -> None:
    thread = await spoken(client, "Write python code")
    copy = (await client.threads.copy(thread))["thread_id"]
    again = (await client.threads.copy(copy))["thread_id"]
    first, last = [(await client.threads.get_state(one))["values"] for one in (thread, again)]
    kept = ("role", "adapter", "selection", "intent", "memory_ids", "usage", "timings", "status")
    assert {key: last[key] for key in kept} == {key: first[key] for key in kept}
    assert asked(last) == ["Write python code"]


async def test_a_removed_thread_is_forgotten(client, http) -> None:
    thread = await spoken(client, "My tortoise is called Achilles")
    assert len(await remembered(http, "Achilles")) >= 1
    await client.threads.delete(thread)
    assert await remembered(http, "Achilles") == []
    with pytest.raises(NotFoundError):
        await client.threads.get(thread)


async def test_a_thread_whose_old_checkpoints_are_removed_is_read_edited_and_answered_again(client) -> None:
    thread = await spoken(client, "Write python code", "What is justice?", "And truth?")
    before = await client.threads.get_state(thread)
    await client.threads.prune([thread], strategy="keep_latest")
    assert (await client.threads.get_state(thread))["values"] == before["values"]
    history = await client.threads.get_history(thread, limit=1000)
    assert [len(state["values"]["messages"]) for state in history] == [6, 5, 4, 3, 2, 1, 0]
    parents = [state["parent_checkpoint"] for state in history]
    assert parents == [*[state["checkpoint"] for state in history[1:]], None]
    for state in history:
        found = await client.threads.get_state(thread, checkpoint=state["checkpoint"])
        assert ids(found["values"]) == ids(state["values"])
    again = history[-3]["values"]["messages"][-1]["id"]
    place = await parent_of(client, thread, again)
    values = await client.runs.wait(thread, "agent", input=None, checkpoint=place)
    assert asked(values) == ["Write python code"]
    place = await parent_of(client, thread, "h1")
    values = await client.runs.wait(thread, "agent", input=say("What is mercy?", "h9"), checkpoint=place)
    assert asked(values) == ["Write python code", "What is mercy?"]


@pytest.mark.parametrize(
    "halfway",
    [{"interrupt_before": ["generate"]}, {"interrupt_after": "*"}, {"command": {"resume": "yes"}}],
)
async def test_our_own_graph_says_that_its_turns_never_wait_halfway(client, halfway) -> None:
    thread = await spoken(client, "What is justice?")
    with pytest.raises(UnprocessableEntityError, match="never wait halfway"):
        await client.runs.create(thread, "agent", input=say("And truth?", "h1"), **halfway)
    with pytest.raises(UnprocessableEntityError, match="say them in a run"):
        await client.threads.update_state(thread, say("And truth?", "h1"))


async def test_threads_are_searched_with_extracts(client) -> None:
    thread = await spoken(client, "What is justice?")
    wanted = {"first": "values.messages[0].content", "none": "values.messages[9].content"}
    found = await client.threads.search(ids=[thread], select=["thread_id"], extract=wanted)
    assert found == [{"thread_id": thread, "extracted": {"first": "What is justice?", "none": None}}]
