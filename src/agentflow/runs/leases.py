"""The leases of this process's runs: renewed together, one statement for all of them, however many there are."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from agentflow.ending import end
from agentflow.errors import DatabaseDown, LeaseLost
from agentflow.protocols import Lease, Ledger

log = structlog.get_logger(__name__)


@dataclass
class Held:
    """A lease, the task that works under it, and what is done when the run shall stop."""

    lease: Lease
    owner: asyncio.Task[Any] | None
    asked: Callable[[str], None]
    lost: bool = False


@dataclass
class Leases:
    """`every` is the heartbeat in seconds, well under the ledger's lease."""

    ledger: Ledger
    every: float = 10.0
    held: dict[str, Held] = field(default_factory=dict)
    renewing: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def kept(self, lease: Lease, asked: Callable[[str], None]) -> AsyncIterator[None]:
        """Renew while the body runs; losing the lease ends the body with LeaseLost.

        `asked` is told how the run shall stop, when somebody asks for that.
        """
        held = self.held[lease.run_id] = Held(lease, asyncio.current_task(), asked)
        if self.renewing is None or self.renewing.done():
            self.renewing = asyncio.create_task(self._renewing(), name="leases")
        try:
            yield
        except asyncio.CancelledError:
            if not held.lost or held.owner is None:
                raise
            held.owner.uncancel()
            raise LeaseLost(
                f"Attempt {lease.attempt} of run {lease.run_id} is no longer the current one."
            ) from None
        finally:
            self.held.pop(lease.run_id)

    async def close(self) -> None:
        """Nothing is held any more."""
        if self.renewing is not None:
            await end([self.renewing])

    async def _renewing(self) -> None:
        while self.held:
            await asyncio.sleep(self.every)
            try:
                await self.renew()
            except DatabaseDown as error:
                log.warning("leases not renewed", runs=len(self.held), reason=error.message)

    async def renew(self) -> None:
        """Extend every lease, and tell the owners of those that are lost or shall stop. Raises DatabaseDown."""
        due = list(self.held.values())
        mine = await self.ledger.renew([one.lease for one in due])
        for one in due:
            if self.held.get(one.lease.run_id) is not one or one.owner is None:
                continue
            if one.lease.run_id not in mine:
                one.lost = True
                one.owner.cancel()
            elif how := mine[one.lease.run_id]:
                one.asked(how)
