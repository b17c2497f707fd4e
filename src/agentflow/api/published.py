"""The keys that an identity provider publishes (JWKS): fetched when needed, kept, asked for again when they turn."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jwt
import structlog

from agentflow.egress import Egress, shown
from agentflow.errors import AgentflowError, Unreachable

log = structlog.get_logger(__name__)
FRESH = 300.0
"""Seconds for which keys are used without asking again."""
AGAIN = 10.0
"""Seconds between two questions, however many tokens name keys that nobody knows."""
SECONDS, LIMIT = 5.0, 256 * 1024


@dataclass
class PublishedKeys:
    """Keys by their id. While the provider is down the last ones hold."""

    url: str
    egress: Egress
    clock: Callable[[], float] = time.monotonic
    _keys: dict[str | None, jwt.PyJWK] = field(default_factory=dict)
    _fetched: float = float("-inf")
    _asked: float = float("-inf")
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def named(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key of a token's header; a token without an id means the only key there is.

        Raises Unreachable as long as no key is known.
        """
        if self._wanted(key_id):
            async with self._turn:
                if self._wanted(key_id):
                    await self._ask()
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _wanted(self, key_id: str | None) -> bool:
        now = self.clock()
        known = key_id in self._keys or (key_id is None and bool(self._keys))
        return (not known or self._fetched + FRESH < now) and self._asked + AGAIN < now

    async def _ask(self) -> None:
        self._asked = self.clock()
        try:
            self._keys = await self._published()
        except (AgentflowError, jwt.PyJWTError, ValueError, TypeError) as error:
            reason = str(error)
            log.warning("keys of the identity provider not read", url=shown(self.url), reason=reason)
            if not self._keys:
                raise Unreachable(
                    f"The identity provider's keys cannot be read: {reason}", retry_after=AGAIN
                ) from error
            return
        self._fetched = self._asked

    async def _published(self) -> dict[str | None, jwt.PyJWK]:
        schemes = ("https", "http")
        async with self.egress.download(self.url, limit=LIMIT, seconds=SECONDS, schemes=schemes) as chunks:
            found = json.loads(b"".join([chunk async for chunk in chunks]))
        if not isinstance(found, dict):
            raise TypeError("the answer is not a key set")
        usable = [key for key in jwt.PyJWKSet.from_dict(found).keys if key.public_key_use in (None, "sig")]
        return {key.key_id: key for key in usable}
