"""Webhooks: the run as it ended, sent to the address that its request named."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agentflow.errors import NotFound
from agentflow.records.protocol.runs import Runs
from agentflow.runs.callbacks import Post
from agentflow.runs.encoding import encoded
from agentflow.turn import Json

JOB = "webhook"


@dataclass(frozen=True)
class Webhooks:
    """The runs of the LangGraph protocol, told as turns are. `values` reads the values of a run's thread."""

    runs: Runs
    post: Post
    values: Callable[[Json, int, str], Awaitable[object]]

    async def deliver(self, payload: Json) -> None:
        """One job. Raises Later and GivenUp."""
        tenant, user, run_id = payload["tenant"], payload["user"], payload["run_id"]
        try:
            run = await self.runs.get(run_id, thread_id=None, tenant=tenant, user=user)
            address = await self.runs.webhook(run_id, tenant=tenant)
        except NotFound:
            return
        if address is not None:
            body = encoded({**run, "values": await self.values(run, tenant, user)})
            await self.post.deliver(address, run_id, lambda _tries: body, payload)
