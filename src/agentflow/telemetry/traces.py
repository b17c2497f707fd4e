"""Traces of turns: turn, its steps, and within generate the wait for the adapter. Off unless an endpoint is set.

The names are those of OpenTelemetry's conventions for generative AI, which are still in development: they stand
here and nowhere else. Spans hold ids, roles, counts and times; never what anybody said.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from agentflow.errors import AgentflowError, StartError

SECONDS = 3.0
"""For one batch with all its tries; so long does a collector that hangs hold up a stop, and nothing else."""
Found = Mapping[str, Any]
Told = Callable[[Found], None]


class Spans(Protocol):
    """What a turn is traced with."""

    def turn(self, *, run_id: str, thread_id: str, attempt: int) -> Any:
        """A context manager around everything that one attempt does."""
        ...

    def step(self, name: str) -> Any:
        """A context manager around a step; gives a function that takes what the step found."""
        ...

    def load(self, role: str) -> Any:
        """A context manager around the wait for the role's adapter."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class NoSpans:
    """Nothing is traced."""

    @contextmanager
    def turn(self, *, run_id: str, thread_id: str, attempt: int) -> Iterator[None]:  # noqa: ARG002 - the seam's
        yield

    @contextmanager
    def step(self, name: str) -> Iterator[Told]:  # noqa: ARG002 - the seam's
        yield lambda _found: None

    @contextmanager
    def load(self, role: str) -> Iterator[None]:  # noqa: ARG002 - the seam's
        yield

    def close(self) -> None:
        """Nothing is left."""


class OtelSpans:
    """Spans of OpenTelemetry. `provider` makes and sends them; `model` and `engine` are told of every answer."""

    def __init__(self, provider: Any, *, model: str, engine: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("agentflow")
        self._model = {"gen_ai.request.model": model, "gen_ai.provider.name": engine}
        self._remote = engine != "local"

    @contextmanager
    def turn(self, *, run_id: str, thread_id: str, attempt: int) -> Iterator[None]:
        named = {"gen_ai.conversation.id": thread_id, "agentflow.run": run_id, "agentflow.attempt": attempt}
        agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "agentflow"}
        with self._span("invoke_agent agentflow", {**agent, **named}):
            yield

    @contextmanager
    def step(self, name: str) -> Iterator[Told]:
        speaks = name == "generate"
        given = {"gen_ai.operation.name": "chat", **self._model} if speaks else {}
        with self._span(
            f"chat {self._model['gen_ai.request.model']}" if speaks else name,
            given,
            out=speaks and self._remote,
        ) as span:
            span.set_attribute("agentflow.step", name)
            yield lambda found: span.set_attributes(attributes(name, found))

    @contextmanager
    def load(self, role: str) -> Iterator[None]:
        with self._span("load", {"agentflow.role": role}):
            yield

    def close(self) -> None:
        self._provider.shutdown()

    @contextmanager
    def _span(self, name: str, given: Found, *, out: bool = False) -> Iterator[Any]:
        """An error is told by its class: its words may hold a message. `out`: it asks another server."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra

        kind = SpanKind.CLIENT if out else SpanKind.INTERNAL
        with self._tracer.start_as_current_span(
            name, kind=kind, attributes=dict(given), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._failed(), error.message if isinstance(error, AgentflowError) else None)
                raise

    def _failed(self) -> Any:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an extra

        return StatusCode.ERROR


def attributes(step: str, found: Found) -> dict[str, Any]:
    """What a step's span says of what the step found."""
    match step:
        case "classify":
            ranking = found["intent"].get("ranking") or []
            best = ranking[0] if ranking else {}
            told = {"agentflow.intent": best.get("role"), "agentflow.intent.score": best.get("score")}
        case "select":
            selection = found["selection"]
            told = {
                "agentflow.role": found["role"] or "base",
                "agentflow.adapter": found["adapter"],
                "agentflow.tier": selection.get("tier"),
                "agentflow.reason": selection.get("reason"),
            }
        case "recall":
            told = {"agentflow.memory": found["memory"], "agentflow.memory.found": len(found["memory_ids"])}
        case "generate":
            usage = found["usage"]
            told = {
                "gen_ai.response.finish_reasons": [found["finish"]],
                "gen_ai.usage.input_tokens": usage["prompt_tokens"],
                "gen_ai.usage.output_tokens": usage["completion_tokens"],
            }
        case _:
            told = {}
    return {name: value for name, value in told.items() if value is not None}


def open_spans(endpoint: str | None, *, model: str, engine: str, version: str) -> Spans:
    """Spans sent by OTLP over HTTP to `endpoint`; without one, none. Raises StartError without the extra."""
    if endpoint is None:
        return NoSpans()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StartError(
            "telemetry.otlp needs OpenTelemetry: pip install 'agentflow[otel]', or leave it out.",
            field="telemetry.otlp",
            value=endpoint,
        ) from error
    provider = TracerProvider(resource=Resource({"service.name": "agentflow", "service.version": version}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SECONDS))
    )
    return OtelSpans(provider, model=model, engine=engine)
