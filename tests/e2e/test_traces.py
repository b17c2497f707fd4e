"""Traces as a collector gets them: OTLP over HTTP, by the conventions for generative AI, with no word of anybody."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TEXT, KEY, USER = "unmistakable python code with functions", "a-secret-key", "unmistakable-user"


class Collector(ThreadingHTTPServer):
    """Keeps what is sent; with `hangs` it never answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[bytes] = []
        self.paths: set[str] = set()
        self.hangs = threading.Event()
        self.end = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> tuple[list[Any], dict[str, Any]]:
        """Every span, and what their senders say of themselves."""
        told = [ExportTraceServiceRequest.FromString(body) for body in self.got]
        resources = [one for each in told for one in each.resource_spans]
        spans = [span for one in resources for scope in one.scope_spans for span in scope.spans]
        return spans, attributes(resources[0].resource)


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(body)
        self.server.paths.add(self.path)
        if self.server.hangs.is_set():
            self.server.end.wait()
            return
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def attributes(holder: Any) -> dict[str, Any]:
    """Attributes as plain values."""

    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        found = getattr(value, kind)
        return [plain(one) for one in found.values] if kind == "array_value" else found

    return {one.key: plain(one.value) for one in holder.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.end.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def house(house, monkeypatch: pytest.MonkeyPatch):
    """One with a key, whose traces go where `traced` says."""
    monkeypatch.setenv("KEY", KEY)

    def traced(url: str):
        config = house.folder / "agentflow.yaml"
        said = config.read_text().replace("{port: 0}", "{port: 0, api_key: 'env:KEY'}")
        config.write_text(f"{said}\ntelemetry: {{otlp: '{url}'}}\n")
        return house

    house.traced = traced
    return house


def talk(house, turns: int = 1) -> list[dict[str, Any]]:
    with house.start() as client:
        client.headers.update({"x-api-key": KEY, "x-agentflow-user": USER})
        said = [client.post("/invoke", json={"input": TEXT, "role": "coder"}).json() for _ in range(turns)]
        assert house.stop() == 0
    return said


def test_a_turn_arrives_as_a_tree_of_the_conventions_without_a_word_of_it(house, collector) -> None:
    (said,) = talk(house.traced(collector.url))
    spans, sender = collector.spans()
    assert collector.paths == {"/v1/traces"}
    assert sender["service.name"] == "agentflow"
    named = {span.name: span for span in spans}
    turn = named["invoke_agent agentflow"]
    (speaks,) = [span for name, span in named.items() if name.startswith("chat ")]
    assert {span.parent_span_id for span in (speaks, named["select"], named["recall"])} == {turn.span_id}
    assert {span.trace_id for span in spans} == {turn.trace_id}
    told = attributes(turn)
    assert (told["gen_ai.operation.name"], told["gen_ai.conversation.id"]) == (
        "invoke_agent",
        said["thread_id"],
    )
    spoken = attributes(speaks)
    assert spoken["gen_ai.operation.name"] == "chat"
    assert spoken["gen_ai.usage.output_tokens"] == said["usage"]["completion_tokens"]
    assert (spoken["gen_ai.provider.name"], attributes(named["select"])["agentflow.role"]) == (
        "double",
        "coder",
    )
    everything = b"".join(collector.got)
    assert [one for one in (TEXT, KEY, USER, "You said") if one.encode() in everything] == []


@pytest.mark.parametrize("hangs", [True, False])
def test_a_collector_that_hangs_or_is_gone_stops_nothing(house, collector, hangs: bool) -> None:
    collector.hangs.set()
    said = talk(house.traced(collector.url if hangs else "http://127.0.0.1:9"), turns=20)
    assert all(one["output"].startswith(f"[coder] You said: {TEXT}") for one in said)
    assert bool(collector.got) == hangs
