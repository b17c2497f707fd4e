"""Callbacks: what a turn came to, posted to the address that its caller gave, until it is taken."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from agentflow.egress import Answer, Egress, shown
from agentflow.errors import AddressRefused, Unreachable
from agentflow.records.callbacks import CallbackRecords, Due
from agentflow.records.jobs import GivenUp, Jobs, Later
from agentflow.turn import Json

log = structlog.get_logger(__name__)
JOB = "callback"
PAUSES = (0.5, 1.0, 2.0, 8.0, 30.0, 120.0, 600.0, 1800.0)
"""Seconds before each further try: nine tries in about 43 minutes."""
LONGEST = 1800.0
AGAIN = (408, 409, 425, 429)
STARTING = (b"Cannot POST", b"is not registered")
"""What an n8n that restarts says, with a 404, until its webhooks are there: about seven seconds (2.41)."""
SECONDS = 10.0
PROMPT = 2.0
"""Seconds: a pause up to here is slept through; the job library looks for later ones every five seconds."""


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
        if 300 <= answer.status < 400:
            return Verdict("dead", f"{reason}: redirects are not followed; give the address it leads to")
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
class Post:
    """Posts until it is taken. `secret` None: unsigned. `clock` gives Unix seconds, `rest` sleeps."""

    egress: Egress
    secret: str | None = None
    clock: Callable[[], float] = time.time
    rest: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def deliver(self, url: str, name: str, body: Callable[[int], bytes], payload: Json) -> None:
        """Try at once and after each short pause; `body` is told the number of the try, from 1.

        Raises Later for a longer pause, or a receiver that is slow to answer: a job holds its place for seconds
        only. Raises GivenUp.
        """
        tries = int(payload.get("tries", 0))
        while True:
            tries, began = tries + 1, self.clock()
            verdict = await self._posted(url, name, body(tries), tries)
            if verdict.kind == "taken":
                return
            log.info("callback not taken", run_id=name, to=shown(url), tries=tries, reason=verdict.reason)
            if verdict.kind == "dead":
                raise GivenUp(verdict.reason, noted={"tries": tries})
            if max(verdict.pause, self.clock() - began) > PROMPT:
                raise Later(verdict.reason, pause=verdict.pause, noted={"tries": tries})
            await self.rest(verdict.pause)

    async def _posted(self, url: str, name: str, body: bytes, tries: int) -> Verdict:
        headers = {"content-type": "application/json", **self._signature(name, body)}
        try:
            answer = await self.egress.post(url, body, headers, seconds=SECONDS)
        except AddressRefused as refused:
            return Verdict("dead", refused.message)
        except Unreachable as unreachable:
            return judge(None, unreachable.message, tries)
        return judge(answer, "", tries)

    def _signature(self, name: str, body: bytes) -> dict[str, str]:
        if self.secret is None:
            return {"webhook-id": name}
        return signed(self.secret, name, int(self.clock()), body)


@dataclass(frozen=True)
class Callbacks:
    """The turns of /invoke. The job is made by the statement that ends the turn (migration 0018)."""

    records: CallbackRecords
    post: Post
    jobs: Jobs

    async def deliver(self, payload: Json) -> None:
        """One job. Raises Later and GivenUp."""
        due = await self.records.due(payload["run"])
        if due is not None:
            await self.post.deliver(due.url, due.run_id, lambda tries: _body(due, tries), payload)

    async def trouble(self, run_id: str, *, tenant: int) -> Json | None:
        """Why nobody was called back yet, if somebody wants to be. Raises DatabaseDown."""
        if not await self.records.asked(run_id, tenant=tenant):
            return None
        return await self.jobs.trouble(JOB, "run", run_id)


def _body(due: Due, tries: int) -> bytes:
    return json.dumps({**due.told, "attempt": tries}, ensure_ascii=False).encode()


def _asked(answer: Answer | None) -> float:
    """Seconds that the receiver asks us to wait, within reason."""
    said = "" if answer is None else answer.headers.get("retry-after", "")
    return min(float(said), LONGEST) if said.isdigit() else 0.0
