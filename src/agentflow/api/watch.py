"""Every request, timed by door and status; and `/metrics`, where Prometheus reads it."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentflow.api.bodies import DoorRoute
from agentflow.api.places import door
from agentflow.residency.roster import Adapter
from agentflow.residency.tally import Tally
from agentflow.telemetry.metrics import CONTENT_TYPE, Metrics
from agentflow.wiring import Services

router = APIRouter(route_class=DoorRoute)


class Watch:
    """Counts requests; the outermost layer, so that refusals are seen too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; the time runs until the last byte."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, name = time.perf_counter(), "none", door(scope["path"])
        streams = None

        async def told(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = str(message["status"])
                if dict(message["headers"]).get(b"content-type", b"").startswith(b"text/event-stream"):
                    streams = self.metrics.streams.labels(name)
                    streams.inc()
            await send(message)

        try:
            await self.app(scope, receive, told)
        finally:
            if streams is not None:
                streams.dec()
            self.metrics.requests.labels(name, status).observe(time.perf_counter() - began)


@router.get("/metrics", response_class=PlainTextResponse, summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    """What this process counted, and what the database holds for all of them."""
    services: Services = request.app.state.services
    services.metrics.take(await services.figures.now() | {"jobs": await services.served.jobs.counted()})
    keeper = services.keeper
    where = {
        role: keeper.tier(role) if isinstance(adapter, Adapter) else "unusable"
        for role, adapter in keeper.roster.items()
    }
    figures = _residency(keeper.tally)
    figures["seats"] = services.worker.figures()
    figures["adapters"] = {(tier,): number for tier, number in Counter(where.values()).items()}
    figures["adapter_of"] = {(role, keeper.identity(role) or "none", tier): 1 for role, tier in where.items()}
    services.metrics.take(figures)
    return Response(services.metrics.text(), media_type=CONTENT_TYPE)


def _residency(tally: Tally) -> dict[str, dict[tuple[str, ...], float]]:
    """What the keeper has counted, by the metrics' names."""
    seen = {"restarts": tally.restarts, "drift": tally.drift, "foreign": tally.foreign}
    counted: dict[str, Mapping[Any, float]] = {
        "loads": tally.loads,
        "load_seconds": tally.load_seconds,
        "load_failures": tally.failures,
        "moves": tally.moves,
        "hits": tally.hits,
        "waits": tally.waits,
        "wait_seconds": tally.wait_seconds,
        "cold": tally.cold,
        "engine": seen,
    }
    return {
        name: {(key,) if isinstance(key, str) else key: value for key, value in table.items()}
        for name, table in counted.items()
    }
