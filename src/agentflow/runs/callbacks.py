"""Callbacks: what a turn came to, posted to the address that its caller gave, until it is taken."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from agentflow.egress import Answer, Egress, shown
from agentflow.errors import AddressRefused, Unreachable
from agentflow.records.callbacks import CallbackRecords, Due

log = structlog.get_logger(__name__)
PAUSES = (0.5, 1.0, 2.0, 8.0, 30.0, 120.0, 600.0, 1800.0)
"""Seconds before each further try: nine tries in about 43 minutes."""
LONGEST = 1800.0
AGAIN = (408, 409, 425, 429)
STARTING = (b"Cannot POST", b"is not registered")
"""What an n8n that restarts says, with a 404, until its webhooks are there: about seven seconds (2.41)."""
SECONDS = 10.0


@dataclass(frozen=True)
class Verdict:
    """What becomes of a callback: it was `taken`, comes `again` after `pause` seconds, or is `dead`."""

    kind: Literal["taken", "again", "dead"]
    reason: str = ""
    pause: float = 0.0


def judge(answer: Answer | None, reason: str, tries: int) -> Verdict:
    """The verdict on the answer to try number `tries`, from 1; None is no answer, for that reason.

    A receiver that is busy (409) or not there yet is asked again; one that has finished, knows nothing of it or
    does not let us in is not. n8n says the first two with the same status, and 404 also while it starts.
    """
    if answer is not None:
        reason = f"HTTP {answer.status}"
        if 200 <= answer.status < 300:
            return Verdict("taken")
        finished = answer.status == 409 and b"finished" in answer.body.lower()
        starting = answer.status == 404 and any(one in answer.body for one in STARTING)
        if finished or (answer.status < 500 and answer.status not in AGAIN and not starting):
            return Verdict("dead", reason)
    if tries > len(PAUSES):
        return Verdict("dead", f"{reason}, after {tries} tries")
    return Verdict("again", reason, max(PAUSES[tries - 1], _asked(answer)))


def signed(secret: str, name: str, at: int, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, base64.

    `secret` is used as it is, or decoded where it begins with `whsec_`.
    """
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    mac = hmac.new(key, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
    stamps = {"webhook-id": name, "webhook-timestamp": str(at)}
    return {**stamps, "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}


@dataclass(frozen=True)
class Callbacks:
    """Posts what is due. `secret` None: unsigned. `clock` gives Unix seconds."""

    records: CallbackRecords
    egress: Egress
    secret: str | None = None
    clock: Callable[[], float] = time.time

    async def deliver(self) -> int:
        """One try for each callback that is due; how many. Raises DatabaseDown."""
        due = await self.records.due(limit=16, hold=SECONDS * 3)
        await asyncio.gather(*(self._try(one) for one in due))
        return len(due)

    async def _try(self, due: Due) -> None:
        verdict = await self._posted(due)
        told = {"run_id": due.run_id, "to": shown(due.url), "try": due.tries, "reason": verdict.reason}
        if verdict.kind == "again":
            log.info("callback will be tried again", **told, pause=verdict.pause)
            await self.records.later(due.id, verdict.reason, verdict.pause)
        elif verdict.kind == "dead":
            log.warning("callback given up", **told)
            await self.records.give_up(due.id, verdict.reason)
        else:
            await self.records.taken(due.id)

    async def _posted(self, due: Due) -> Verdict:
        body = json.dumps({**due.told, "attempt": due.tries}, ensure_ascii=False).encode()
        headers = {"content-type": "application/json", **self._signature(due, body)}
        try:
            answer = await self.egress.post(due.url, body, headers, seconds=SECONDS)
        except AddressRefused as refused:
            return Verdict("dead", refused.message)
        except Unreachable as unreachable:
            return judge(None, unreachable.message, due.tries)
        return judge(answer, "", due.tries)

    def _signature(self, due: Due, body: bytes) -> dict[str, str]:
        if self.secret is None:
            return {"webhook-id": due.run_id}
        return signed(self.secret, due.run_id, int(self.clock()), body)


def _asked(answer: Answer | None) -> float:
    """Seconds that the receiver asks us to wait, within reason."""
    said = "" if answer is None else answer.headers.get("retry-after", "")
    return min(float(said), LONGEST) if said.isdigit() else 0.0
