"""Requests that were made under an idempotency key, where no run stands for them, and how they were answered."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from agentflow.errors import Busy, Conflict
from agentflow.protocols import Owner
from agentflow.records.connections import Connections

SILENCE = timedelta(minutes=1)
"""Who is not heard of for so long has died: the same request may be carried out again."""
KEPT = timedelta(days=1)
LARGEST = 256 * 1024
"""Bytes of an answer that is kept."""
# Of several at once one inserts; the others wait for its row and find it.
CLAIM = """
insert into claim as c (tenant, user_ref, idem_key, fingerprint, holder)
values (%(tenant)s, %(user)s, %(key)s, %(fingerprint)s, %(holder)s)
on conflict (tenant, user_ref, idem_key) do update
set holder = excluded.holder, fingerprint = excluded.fingerprint, status = null, headers = null, body = null, at = now()
where c.at < now() - %(kept)s
   or c.status is null and c.fingerprint = excluded.fingerprint and c.at < now() - %(silence)s
returning holder
"""
ASKED = """
select fingerprint, status, headers, body from claim
where tenant = %(tenant)s and user_ref = %(user)s and idem_key = %(key)s
"""
_MINE = """
where tenant = %(tenant)s and user_ref = %(user)s and idem_key = %(key)s and holder = %(holder)s and status is null
"""
ANSWER = f"update claim set status = %(status)s, headers = %(headers)s, body = %(body)s, at = now() {_MINE}"  # noqa: S608
RENEW = f"update claim set at = now() {_MINE}"  # noqa: S608 - constants, as above and below
RELEASE = f"delete from claim {_MINE}"  # noqa: S608
SWEEP = "delete from claim where at < now() - %(kept)s"


@dataclass(frozen=True)
class Claim:
    """A request and its key. `fingerprint` stands for all that was asked for, `holder` for who carries it out."""

    owner: Owner
    key: str
    fingerprint: bytes
    holder: uuid.UUID

    @property
    def named(self) -> dict[str, Any]:
        return {
            "tenant": self.owner.tenant,
            "user": self.owner.user,
            "key": self.key,
            "fingerprint": self.fingerprint,
            "holder": self.holder,
        }


@dataclass(frozen=True)
class Answered:
    """An answer as it was given; `body` is None where it was too large to be kept."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | None


@dataclass(frozen=True)
class Claims:
    """The claim table."""

    connections: Connections

    async def claim(self, claim: Claim) -> Answered | None:
        """None: carry it out, then tell the answer, or release it. Otherwise it was, and that is how it was answered.

        Raises Conflict where the key stands for another request, Busy while its request is under way, DatabaseDown.
        """
        asked = {**claim.named, "kept": KEPT, "silence": SILENCE}
        async with self.connections.use(claim.owner) as connection:
            if await (await connection.execute(CLAIM, asked)).fetchone() is not None:
                return None
            row = await (await connection.execute(ASKED, asked)).fetchone()
        if row is not None and bytes(row[0]) != claim.fingerprint:
            message = f"The idempotency key {claim.key!r} was used for another request; use a new key."
            raise Conflict(message, field="Idempotency-Key", value=claim.key)
        if row is None or row[1] is None:  # released in between, or held
            message = f"The first request with the idempotency key {claim.key!r} is under way; ask again."
            raise Busy(message, field="Idempotency-Key", value=claim.key, retry_after=1)
        headers = [(name, value) for name, value in row[2]]
        return Answered(row[1], headers, None if row[3] is None else bytes(row[3]))

    async def answer(self, claim: Claim, answered: Answered) -> None:
        """Keep the answer, unless somebody else carries the request out by now. Raises DatabaseDown."""
        body = answered.body if answered.body is not None and len(answered.body) <= LARGEST else None
        told = {"status": answered.status, "headers": Jsonb(answered.headers), "body": body}
        await self._done(claim, ANSWER, told)

    async def renew(self, claim: Claim) -> None:
        """It is still under way. Raises DatabaseDown."""
        await self._done(claim, RENEW, {})

    async def release(self, claim: Claim) -> None:
        """Nothing came of it: the next request with the key is the first. Raises DatabaseDown."""
        await self._done(claim, RELEASE, {})

    async def sweep(self) -> None:
        """Remove what is older than a day. Raises DatabaseDown."""
        async with self.connections.background() as connection:
            await connection.execute(SWEEP, {"kept": KEPT})

    async def _done(self, claim: Claim, statement: str, told: dict[str, Any]) -> None:
        async with self.connections.use(claim.owner) as connection:
            await connection.execute(statement.encode(), {**claim.named, **told})
