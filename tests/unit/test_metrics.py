"""Metrics: counted where it happens, labelled with roles, tiers, doors and states only."""

import json
import re
from pathlib import Path

import httpx
import structlog
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from agentflow.api.places import door
from agentflow.api.watch import Watch
from agentflow.errors import EngineDown
from agentflow.telemetry import Metrics
from agentflow.telemetry.metrics import TurnMeter

ALLOWED = {
    "role",
    "adapter",
    "tier",
    "door",
    "status",
    "step",
    "kind",
    "limit",
    "what",
    "why",
    "branch",
    "le",
}
EVENTS = [
    {"event": "recall", "ms": 4, "memory": "full", "memories": []},
    {"event": "select", "ms": 2, "role": "coder", "selection": {"tier": "ram"}},
    {"event": "token", "text": "a"},
    {"event": "token", "text": "b"},
    {"event": "done", "role": "coder", "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"agentflow_{name}", labels)


def test_a_turn_is_counted_by_role_and_tier() -> None:
    metrics, ticks = Metrics(), iter([10.0, 10.5, 12.0])
    meter = TurnMeter(metrics, clock=lambda: next(ticks))
    for event in EVENTS:
        meter(event)
    meter.end(None)
    labels = {"role": "coder", "tier": "ram"}
    assert value(metrics, "first_token_seconds_sum", **labels) == 0.5
    assert value(metrics, "turn_seconds_sum", **labels, status="done") == 2.0
    assert value(metrics, "tokens_total", role="coder", kind="completion") == 2
    assert value(metrics, "recalls_empty_total") == 1


def test_every_turn_ends_with_a_line_in_the_log() -> None:
    ticks = iter([0.0, 1.5])
    meter = TurnMeter(Metrics(), clock=lambda: next(ticks))
    meter({"event": "select", "role": "coder", "adapter": "coder@1a", "selection": {"tier": "vram"}})
    with structlog.testing.capture_logs() as lines:
        meter.end(None)
    told = {"status": "done", "role": "coder", "adapter": "coder@1a", "tier": "vram", "seconds": 1.5}
    assert lines == [{"event": "turn ended", "log_level": "info", **told}]


def test_a_turn_that_ended_with_an_error_is_counted_under_its_name() -> None:
    metrics = Metrics()
    metrics.turn().end(EngineDown("down"))
    assert value(metrics, "turn_seconds_count", role="base", tier="none", status="EngineDown") == 1


def test_labels_that_are_gone_disappear() -> None:
    metrics = Metrics()
    metrics.take({"queue": {("queued",): 3, ("running",): 1}})
    metrics.take({"queue": {("running",): 2}})
    assert (value(metrics, "runs", status="queued"), value(metrics, "runs", status="running")) == (None, 2)


def test_no_label_can_hold_a_tenant_a_thread_or_a_text() -> None:
    metrics = Metrics()
    for event in EVENTS:
        metrics.event(event)
    families = text_string_to_metric_families(metrics.text().decode())
    assert {label for family in families for sample in family.samples for label in sample.labels} <= ALLOWED


def test_paths_are_a_handful_of_doors() -> None:
    paths = ("/invoke", "/v1/chat/completions", "/threads/1/runs/wait", "/docs", "/", "/nonsense/x")
    assert [door(path) for path in paths] == ["invoke", "openai", "protocol", "house", "house", "house"]


async def test_every_request_is_timed_by_door_and_status() -> None:
    metrics = Metrics()
    app = Starlette(routes=[Route("/invoke", lambda _: PlainTextResponse("hi"))])
    transport = httpx.ASGITransport(Watch(app, metrics))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        await client.get("/invoke")
        await client.get("/threads/other")
    assert value(metrics, "request_seconds_count", door="invoke", status="200") == 1
    assert value(metrics, "request_seconds_count", door="protocol", status="404") == 1


def test_the_dashboard_asks_for_metrics_that_are_there() -> None:
    dashboard = json.loads((Path(__file__).parents[2] / "docs/grafana/agentflow.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"agentflow_\w+", target["expr"])
    }
    there = {one.name for one in Metrics().registry.collect()}
    known = {f"{name}{suffix}" for name in there for suffix in ("", "_total", "_bucket", "_sum", "_count")}
    assert asked - known == set()
