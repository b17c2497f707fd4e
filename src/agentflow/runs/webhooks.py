"""Webhooks: the run as it ended, sent to the address that its request named."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from agentflow.egress import Egress
from agentflow.errors import AddressRefused, AgentflowError, NotFound
from agentflow.records.jobs import Jobs
from agentflow.records.runs import Runs
from agentflow.runs.callbacks import judge, signed
from agentflow.runs.encoding import encoded
from agentflow.turn import Json

log = structlog.get_logger(__name__)
JOB = "webhook"


class NotDelivered(AgentflowError):
    """The receiver did not take it; it is tried again."""


@dataclass(frozen=True)
class Webhooks:
    """`values` reads the values of a run's thread. `secret` None: unsigned. `clock` gives Unix seconds."""

    runs: Runs
    egress: Egress
    jobs: Jobs
    values: Callable[[Json, int, str], Awaitable[object]]
    secret: str | None = None
    clock: Callable[[], float] = time.time

    async def owed(self) -> int:
        """Ask for the delivery of every run that has ended since and was not told; how many."""
        found = await self.runs.untold(limit=100)
        for run_id, tenant, user in found:
            await self.jobs.defer(JOB, {"run_id": run_id, "tenant": tenant, "user": user}, once=run_id)
            await self.runs.told(run_id)
        return len(found)

    async def deliver(self, payload: Json) -> None:
        """One try. Raises NotDelivered to be called again."""
        tenant, user = payload["tenant"], payload["user"]
        try:
            run = await self.runs.get(payload["run_id"], thread_id=None, tenant=tenant, user=user)
            address = await self.runs.webhook(payload["run_id"], tenant=tenant)
        except NotFound:
            return
        if address is not None:
            values = await self.values(run, tenant, user)
            await self.send(address, {**run, "values": values}, payload["run_id"])

    async def send(self, address: str, body: Json, delivery: str) -> None:
        """Signed as callbacks are, and tried again for the same reasons. Raises NotDelivered and Unreachable."""
        told = encoded(body)
        headers = {"content-type": "application/json", "x-agentflow-delivery": delivery}
        if self.secret is not None:
            headers |= signed(self.secret, delivery, int(self.clock()), told)
        try:
            answer = await self.egress.post(address, told, headers)
        except AddressRefused as error:
            log.warning("webhook refused", run_id=delivery, reason=error.message)
            return
        verdict = judge(answer, "", 1)
        if verdict.kind == "dead":
            log.warning("webhook refused by its receiver", run_id=delivery, status=answer.status)
        elif verdict.kind == "again":
            raise NotDelivered(f"The receiver answered {answer.status}.")
