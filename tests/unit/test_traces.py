"""Traces: a turn's spans stand under each other as its steps do, and hold no word of it."""

import json
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from agentflow.errors import EngineDown, StartError
from agentflow.protocols import Request
from agentflow.telemetry.traces import NoSpans, OtelSpans, open_spans


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> OtelSpans:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OtelSpans(provider, model="tiny", engine="fake")


def tree(exporter: InMemorySpanExporter) -> dict[str, str | None]:
    """Every span's name with its parent's."""
    finished = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in finished}
    return {span.name: names.get(span.parent.span_id) if span.parent else None for span in finished}


async def test_a_turn_is_a_tree_of_its_steps(world, exporter, spans) -> None:
    async with world(spans=spans) as w:
        feed = await w.worker.start(Request(text="unmistakable python code", wanted_role="coder"))
        await feed.finished()
        await w.worker.close(grace=5)
    turn = "invoke_agent agentflow"
    steps = ("accept", "classify", "select", "recall", "chat tiny", "remember")
    assert tree(exporter) == {turn: None, "load": "chat tiny", **dict.fromkeys(steps, turn)}
    assert len({span.context.trace_id for span in exporter.get_finished_spans()}) == 1


async def test_spans_say_who_spoke_and_how_much_but_not_what(world, exporter, spans) -> None:
    async with world(spans=spans) as w:
        feed = await w.worker.start(Request(text="unmistakable python code", wanted_role="coder"))
        answer = await feed.finished()
        await w.worker.close(grace=5)
    told = {span.name: dict(span.attributes or {}) for span in exporter.get_finished_spans()}
    assert told["invoke_agent agentflow"]["gen_ai.conversation.id"] == answer["thread_id"]
    assert told["select"]["agentflow.role"] == "coder"
    spoken = told["chat tiny"]
    assert spoken["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"]
    assert (spoken["gen_ai.request.model"], spoken["gen_ai.provider.name"]) == ("tiny", "fake")
    assert "unmistakable" not in json.dumps(told, default=str)


async def test_what_fails_is_told_by_its_class_on_every_span_above_it(world, exporter, spans) -> None:
    async with world(spans=spans) as w:
        w.engine.failure = EngineDown("nothing answers")
        feed = await w.worker.start(Request(text="hello", wanted_role="coder"))
        with pytest.raises(EngineDown):
            await feed.finished()
        await w.worker.close(grace=5)
    failed = {span.name: (span.attributes or {}).get("error.type") for span in exporter.get_finished_spans()}
    assert failed["chat tiny"] == failed["invoke_agent agentflow"] == "EngineDown"


def test_without_an_endpoint_nothing_is_traced() -> None:
    assert isinstance(open_spans(None, model="m", engine="e", version="0"), NoSpans)


def test_an_endpoint_without_the_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(StartError, match=r"agentflow\[otel\]"):
        open_spans("http://127.0.0.1:4318", model="m", engine="e", version="0")


@pytest.mark.parametrize(("engine", "kind"), [("vllm", SpanKind.CLIENT), ("local", SpanKind.INTERNAL)])
def test_a_generation_on_another_server_is_a_clients_span(exporter, engine, kind) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with OtelSpans(provider, model="tiny", engine=engine).step("generate"):
        pass
    assert [span.kind for span in exporter.get_finished_spans()] == [kind]
