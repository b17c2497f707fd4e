"""What a run streams, told in the words of the event protocol."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agentflow.runs.telling import Telling, Wanted

STATE = {"config": {"configurable": {"checkpoint_id": "c2"}}, "metadata": {"step": 1, "source": "loop"}}


def chunk(text: str = "", **more) -> list:
    return [
        {"type": "AIMessageChunk", "id": "m1", "content": text, **more},
        {"langgraph_node": "generate", "tags": []},
    ]


def told(*events) -> list:
    telling = Telling()
    heard = [one for name, data in events for one in telling.hear(name, data)]
    return [*heard, *telling.ended()]


def test_a_message_begins_grows_and_ends() -> None:
    events = told(
        ("messages", chunk("Hel")),
        ("messages", chunk("lo", usage_metadata={"input_tokens": 2, "output_tokens": 1, "total_tokens": 3})),
    )
    assert [method for method, _, _ in events] == ["messages"] * len(events)
    said = [data for _, _, data in events]
    assert said[0]["metadata"] == {"langgraph_node": "generate"}
    assert [(one["event"], one.get("delta"), one.get("content"), one.get("index")) for one in said] == [
        ("message-start", None, None, None),
        ("content-block-start", None, {"type": "text", "text": ""}, 0),
        ("content-block-delta", {"type": "text-delta", "text": "Hel"}, None, 0),
        ("content-block-delta", {"type": "text-delta", "text": "lo"}, None, 0),
        ("content-block-finish", None, {"type": "text", "text": "Hello"}, 0),
        ("message-finish", None, None, None),
    ]
    assert said[-1]["usage"] == {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3}


def test_a_tool_call_grows_and_is_read_at_its_end() -> None:
    calls = [
        {"id": "t1", "name": "look", "args": '{"at"', "index": 0},
        {"id": None, "name": None, "args": ': "x"}', "index": 0},
    ]
    events = told(*[("messages", chunk(tool_call_chunks=[one])) for one in calls])
    assert [data.get("delta") for _, _, data in events if data["event"] == "content-block-delta"] == [
        {"type": "tool-call-delta", "args": '{"at"'},
        {"type": "tool-call-delta", "args": ': "x"}'},
    ]
    assert events[-2][2]["content"] == {"type": "tool_call", "id": "t1", "name": "look", "args": {"at": "x"}}


def test_a_tool_call_that_is_no_json_is_said_to_be_invalid() -> None:
    events = told(
        ("messages", chunk(tool_call_chunks=[{"id": "t", "name": "look", "args": "{", "index": 0}]))
    )
    assert events[-2][2]["content"]["type"] == "invalid_tool_call"


def test_a_whole_message_is_told_once() -> None:
    whole = [{"type": "ai", "id": "m1", "content": [{"type": "text", "text": "Hi"}], "tool_calls": []}, {}]
    events = told(("messages", whole), ("messages", whole), ("messages", chunk("late")))
    assert [data["event"] for _, _, data in events].count("message-start") == 1
    assert events[-1][2]["event"] == "message-finish"


def test_two_messages_may_grow_at_the_same_time() -> None:
    other = [{"type": "AIMessageChunk", "id": "m2", "content": "b"}, {}]
    events = told(("messages", chunk("a")), ("messages|sub:1", other), ("messages", chunk("c")))
    texts = {
        data["message_id"]: data["content"]["text"]
        for _, _, data in events
        if data["event"] == "content-block-finish"
    }
    assert texts == {"m1": "ac", "m2": "b"}


def test_a_checkpoint_comes_before_the_state_it_holds() -> None:
    parent = {"configurable": {"checkpoint_id": "c1"}}
    events = told(("values", {"a": 1}), ("checkpoints", {**STATE, "parent_config": parent}), ("values", {}))
    assert events == [
        ("checkpoints", [], {"id": "c2", "parent_id": "c1", "step": 1, "source": "loop"}),
        ("values", [], {"a": 1}),
        ("values", [], {}),
    ]


def test_updates_and_custom_events_have_the_protocols_shape() -> None:
    events = told(
        ("updates", {"classify": {"intent": "x"}, "__interrupt__": []}),
        ("custom", {"stage": 1}),
        ("custom|sub:1", {"name": "progress", "payload": 2}),
    )
    assert events == [
        ("updates", [], {"node": "classify", "values": {"intent": "x"}}),
        ("custom", [], {"payload": {"stage": 1}}),
        ("lifecycle", ["sub:1"], {"event": "started", "graph_name": "sub"}),
        ("custom", ["sub:1"], {"name": "progress", "payload": 2}),
        ("lifecycle", ["sub:1"], {"event": "completed", "graph_name": "sub"}),
    ]


@given(st.lists(st.sampled_from(["values", "checkpoints", "updates"])))
def test_no_state_is_lost_and_their_order_is_kept(names) -> None:
    events = [(name, {"n": place} if name == "values" else {}) for place, name in enumerate(names)]
    states = [data["n"] for method, _, data in told(*events) if method == "values"]
    assert states == [place for place, name in enumerate(names) if name == "values"]
    assert all(one < other for one, other in pairwise(states))


@given(st.lists(st.text(max_size=3), max_size=6))
def test_what_is_told_of_a_message_adds_up(pieces) -> None:
    events = told(*[("messages", chunk(one)) for one in pieces])
    grown = "".join(data["delta"]["text"] for _, _, data in events if data["event"] == "content-block-delta")
    assert grown == "".join(pieces)
    assert json.dumps(events)


def event(*namespace: str, method: str = "values", **data) -> dict:
    return {"method": method, "params": {"namespace": list(namespace), "data": data}}


def test_a_subscription_takes_its_channels_and_namespaces() -> None:
    wanted = Wanted(frozenset({"values", "custom:a"}), (("fetch",),), depth=1)
    assert wanted.takes(event("fetch:1"))
    assert wanted.takes(event("fetch:1", "inner:2"))
    assert not wanted.takes(event("fetch:1", "inner:2", "deeper:3"))
    assert not wanted.takes(event("other:1"))
    assert not wanted.takes(event("fetch:1", method="updates"))
    assert wanted.takes(event("fetch:1", method="custom", name="a"))
    assert not wanted.takes(event("fetch:1", method="custom", name="b"))


def test_without_namespaces_everything_is_wanted() -> None:
    assert Wanted(frozenset({"input"}), (), depth=0).takes(event("a:1", "b:2", method="input.requested"))


def test_a_prefix_with_an_id_is_one_place() -> None:
    wanted = Wanted(frozenset({"values"}), (("fetch:1",),))
    assert wanted.takes(event("fetch:1"))
    assert not wanted.takes(event("fetch:2"))
