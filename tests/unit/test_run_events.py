"""Events of a run for its readers: in order, once each, bounded; and values as JSON."""

import asyncio
from dataclasses import dataclass

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langgraph.types import Interrupt

from agentflow.runs.encoding import encoded, storable
from agentflow.runs.events import Behind, Stream, seq_of


async def read(stream: Stream, after: int = 0) -> list[int]:
    return [event.seq async for events in stream.follow(after) for event in events]


@given(st.integers(0, 20), st.integers(0, 25))
def test_a_reader_sees_what_comes_after_its_last_event_once_and_in_order(many: int, after: int) -> None:
    stream = Stream("run")
    for number in range(many):
        stream.add("values", number)
    stream.close()
    assert asyncio.run(read(stream, after)) == list(range(after + 1, many + 1))


async def test_a_reader_that_waits_is_woken_by_the_next_event() -> None:
    stream = Stream("run")
    reading = asyncio.create_task(read(stream))
    await asyncio.sleep(0)
    stream.add("values", 1)
    stream.close()
    assert await reading == [1]


async def test_a_reader_that_is_too_far_behind_is_cut_off() -> None:
    stream = Stream("run", window=40)
    following = stream.follow()
    stream.add("values", "x" * 10)
    assert [event.seq for event in await anext(following)] == [1]
    for _ in range(20):
        stream.add("values", "x" * 10)
    with pytest.raises(Behind):
        await anext(following)
    assert len(stream.events) < 5


async def test_a_reader_from_elsewhere_hears_nothing_twice_from_a_mirror_that_is_behind() -> None:
    stream, source = Stream("run"), Stream("run")
    reading = asyncio.create_task(read(stream, after=2))
    await asyncio.sleep(0)
    for number in range(4):
        source.add("values", number)
        stream.take(source.events[-1])
    stream.close()
    assert await reading == [3, 4]


async def test_another_attempt_goes_on_above_what_the_first_has_told() -> None:
    stream = Stream("run")
    stream.add("metadata", 1)
    stream.go_on(1007)
    stream.add("values", 2)
    stream.close()
    assert await read(stream, after=0) == [1, 1008]
    assert await read(stream, after=5) == [1008]


def test_a_stream_that_begins_with_another_attempt_has_nothing_before_it() -> None:
    stream = Stream("run")
    stream.go_on(1007)
    stream.add("metadata", 1)
    assert stream.first == 1008


async def test_what_everybody_has_read_is_not_kept_and_what_somebody_has_not_is() -> None:
    stream = Stream("run")
    for _ in range(30):
        stream.add("values", "x" * 1000)
    assert len(stream.events) == 30
    fast, slow = stream.follow(), stream.follow(after=10)
    assert (len(await anext(fast)), len(await anext(slow))) == (30, 20)
    stream.add("values", "x" * 1000)
    assert len(stream.events) == 31
    assert [event.seq for event in await anext(fast)] == [31]
    assert [event.seq for event in await anext(slow)] == [31]
    stream.add("values", "x" * 1000)
    assert len(stream.events) < 18


async def test_silence_is_told_as_nothing() -> None:
    assert await anext(Stream("run").follow(idle=0.001)) == []


@pytest.mark.parametrize("text", ["-1", "-", "", "x-3", "1700000000000-", "1700000000000-99999999999", "-5"])
def test_an_id_that_is_not_ours_means_the_beginning(text: str) -> None:
    assert seq_of(text) == 0


def test_an_events_id_leads_back_to_its_number() -> None:
    stream = Stream("run", clock=lambda: 1700000000.5)
    stream.add("values", 1)
    assert (stream.events[0].id, seq_of(stream.events[0].id)) == ("1700000000500-1", 1)


@dataclass
class Plain:
    x: int


def test_whatever_a_node_returns_has_a_form_in_json() -> None:
    value = {
        "message": HumanMessage("hi", id="1"), "interrupt": Interrupt("why?", id="2"), "plain": Plain(3),
        "set": {4}, "big": 2**70, 5: b"six",
    }  # fmt: skip
    found = orjson.loads(encoded(value).replace(str(2**70).encode(), b"0"))
    assert (found["message"]["content"], found["message"]["type"]) == ("hi", "human")
    assert found["interrupt"] == {"value": "why?", "id": "2"}
    assert (found["plain"], found["set"], found["5"]) == ({"x": 3}, [4], "six")


def test_what_postgres_refuses_is_left_out_of_what_is_stored() -> None:
    assert storable({"a": "x\x00y"}) == '{"a":"xy"}'
