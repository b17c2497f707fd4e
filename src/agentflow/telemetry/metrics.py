"""Prometheus metrics: one registry per process, handed to whoever counts; labels never name a tenant, thread or text.

What happens is counted where it happens; what merely is (queues, tiers, sizes) is read when somebody asks for
`/metrics` and set as gauges by `Metrics.take`.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.registry import Collector

from agentflow.errors import AgentflowError

log = structlog.get_logger(__name__)
CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)


@dataclass(frozen=True)
class Metrics:
    """Every metric is a field; a new one is one more line here. Times are seconds, sizes bytes."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        for name, metric in _made(self.registry).items():
            object.__setattr__(self, name, metric)

    requests: Histogram = field(init=False)
    turns: Histogram = field(init=False)
    steps: Histogram = field(init=False)
    first_token: Histogram = field(init=False)
    tokens: Counter = field(init=False)
    recalled: Histogram = field(init=False)
    recalls_empty: Counter = field(init=False)
    degraded: Counter = field(init=False)
    leases_lost: Counter = field(init=False)
    attempts: Counter = field(init=False)
    recovered: Counter = field(init=False)
    refused: Counter = field(init=False)
    streams: Gauge = field(init=False)
    seats: Gauge = field(init=False)
    queue: Gauge = field(init=False)
    queue_age: Gauge = field(init=False)
    jobs: Gauge = field(init=False)
    outbox: Gauge = field(init=False)
    outbox_age: Gauge = field(init=False)
    checkpoint_bytes: Gauge = field(init=False)
    adapters: Gauge = field(init=False)
    adapter_of: Gauge = field(init=False)
    loads: Gauge = field(init=False)
    load_seconds: Gauge = field(init=False)
    load_failures: Gauge = field(init=False)
    moves: Gauge = field(init=False)
    hits: Gauge = field(init=False)
    waits: Gauge = field(init=False)
    wait_seconds: Gauge = field(init=False)
    cold: Gauge = field(init=False)
    engine: Gauge = field(init=False)

    def turn(self) -> "TurnMeter":
        """For one turn, from now on."""
        return TurnMeter(self)

    def event(self, event: Mapping[str, Any]) -> None:
        """One event of a turn, as its feed shows them: steps with their time, and what they found."""
        step, spent = str(event.get("event")), event.get("ms")
        if spent is not None:
            self.steps.labels(step).observe(float(spent) / 1000)
        if step == "recall":
            found = len(event.get("memories") or ())
            self.recalled.observe(found)
            if event.get("memory") == "full" and not found:
                self.recalls_empty.inc()
            if event.get("memory") == "degraded":
                self.degraded.inc()
        if step == "done":
            for kind, number in (event.get("usage") or {}).items():
                self.tokens.labels(str(event.get("role") or "base"), kind.removesuffix("_tokens")).inc(number)

    def take(self, figures: Mapping[str, Mapping[tuple[str, ...], float]]) -> None:
        """Set gauges by field name: {"queue": {("running",): 3}}; labels that are gone disappear.

        What ends in `_total` is counted by its owner and only shown here.
        """
        for name, values in figures.items():
            gauge: Gauge = getattr(self, name)
            gauge.clear()
            for labels, value in values.items():
                (gauge.labels(*labels) if labels else gauge).set(value)

    def collect(self, collectors: Iterable[Collector]) -> None:
        """Let others' collectors answer too: processes, pools."""
        for collector in collectors:
            self.registry.register(collector)

    def text(self) -> bytes:
        """The exposition that Prometheus reads."""
        return generate_latest(self.registry)


@dataclass
class TurnMeter:
    """Sees the events of one turn go by; called with each, and with the error or None at the end."""

    metrics: Metrics
    clock: Callable[[], float] = time.perf_counter
    role: str = "base"
    tier: str = "none"
    adapter: str = "none"
    began: float = 0.0
    spoken: bool = False

    def __post_init__(self) -> None:
        self.began = self.clock()

    def __call__(self, event: Mapping[str, Any]) -> None:
        self.metrics.event(event)
        if event.get("event") == "select":
            self.role = str(event.get("role") or "base")
            self.tier = str((event.get("selection") or {}).get("tier") or "none")
            self.adapter = str(event.get("adapter") or "none")
        if event.get("event") == "token" and not self.spoken:
            self.spoken = True
            self.metrics.first_token.labels(self.role, self.tier).observe(self.clock() - self.began)

    def end(self, error: AgentflowError | None) -> None:
        """The turn is over, by an answer or by an error: counted, and one line in the log."""
        status, seconds = "done" if error is None else type(error).__name__, self.clock() - self.began
        self.metrics.turns.labels(self.role, self.tier, status).observe(seconds)
        told = {"role": self.role, "adapter": self.adapter, "tier": self.tier, "seconds": round(seconds, 3)}
        log.info("turn ended", status=status, **told)


def _made(registry: CollectorRegistry) -> dict[str, Histogram | Counter | Gauge]:
    def histogram(name: str, about: str, *labels: str, buckets: Any = SECONDS) -> Histogram:
        return Histogram(f"agentflow_{name}", about, labels, buckets=buckets, registry=registry)

    def counter(name: str, about: str, *labels: str) -> Counter:
        return Counter(f"agentflow_{name}", about, labels, registry=registry)

    def gauge(name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"agentflow_{name}", about, labels, registry=registry)

    return {
        "requests": histogram("request_seconds", "HTTP requests until their last byte", "door", "status"),
        "turns": histogram("turn_seconds", "Turns from acceptance to their end", "role", "tier", "status"),
        "steps": histogram("step_seconds", "Steps of turns", "step"),
        "first_token": histogram("first_token_seconds", "From acceptance to the first token", "role", "tier"),
        "tokens": counter("tokens", "Tokens as engines count them", "role", "kind"),
        "recalled": histogram(
            "recalled_memories", "Memories shown per turn", buckets=(0, 1, 2, 4, 6, 10, 25)
        ),
        "recalls_empty": counter("recalls_empty", "Turns whose recall found nothing"),
        "degraded": counter(
            "recalls_degraded", "Turns recalled by words only: the embedder was down or slow"
        ),
        "leases_lost": counter(
            "leases_lost", "Attempts that lost their lease or their database; the run went on with another"
        ),
        "attempts": counter("attempts_again", "Attempts after the first"),
        "recovered": counter("janitor_recovered", "Turns taken over from a worker that is gone"),
        "refused": counter("refused", "Requests refused by a limit", "limit"),
        "streams": gauge("streams_open", "Event streams being read", "door"),
        "seats": gauge(
            "seats", "Runs in this process: running, waiting for their turn, and at most", "state"
        ),
        "queue": gauge("runs", "Runs that are open", "status"),
        "queue_age": gauge("runs_oldest_seconds", "Age of the oldest open run", "status"),
        "jobs": gauge("jobs", "Jobs in the background; failed ones were given up", "name", "status"),
        "outbox": gauge("outbox", "What the outbox owes", "kind"),
        "outbox_age": gauge("outbox_oldest_seconds", "Age of the oldest owed thing", "kind"),
        "checkpoint_bytes": gauge("checkpoint_bytes", "Size of LangGraph's checkpoints"),
        "adapters": gauge("adapters", "Adapters by where they are", "tier"),
        "adapter_of": gauge(
            "adapter_info", "Each role's adapter by its digest, and where it is", "role", "adapter", "tier"
        ),
        "loads": gauge("adapter_loads_total", "Ways of adapters into a tier", "role", "tier"),
        "load_seconds": gauge("adapter_load_seconds_total", "Time those took", "role", "tier"),
        "load_failures": gauge("adapter_load_failures_total", "Ways that failed", "role", "tier"),
        "moves": gauge("adapter_moves_total", "Changes of tiers, with the reason", "role", "tier", "why"),
        "hits": gauge("adapter_hits_total", "Turns by where they found their adapter", "role", "tier"),
        "waits": gauge("adapter_waits_total", "Turns that waited for their adapter", "role"),
        "wait_seconds": gauge("adapter_wait_seconds_total", "Time they waited", "role"),
        "cold": gauge("adapter_cold_total", "What was done about cold adapters", "role", "branch"),
        "engine": gauge(
            "engine_seen_total", "What was seen of the engine: restarts, drift, foreign adapters", "what"
        ),
    }
