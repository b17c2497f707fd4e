"""Who may: every credential goes through one gate, and what each door takes of the caller is `caller(request)`."""

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from agentflow.api.problems import problem
from agentflow.api.quota import Quota
from agentflow.api.tokens import Tokens, tokens
from agentflow.errors import AgentflowError, BadInput, DatabaseDown, Forbidden, Unauthorized
from agentflow.protocols import Owner, Spending
from agentflow.records.keys import PREFIX, SCOPES, Key, Keys
from agentflow.settings import Settings
from agentflow.telemetry import Metrics

OPEN = ("/health", "/ok")
EVERYTHING = frozenset(SCOPES)
USER = "x-agentflow-user"
"""The header by which a key with the scope `users` names whom it speaks for."""
NAME = 512
"""Characters of a user's name."""
READS = ("GET", "HEAD", "OPTIONS")
ANY: frozenset[str] = frozenset()
# What a path needs: one of these scopes. What is not listed needs `admin`, so a new door is closed until it is.
NEEDS: dict[str, frozenset[str]] = {
    "invoke": frozenset({"chat"}),
    "v1": frozenset({"chat"}),
    "turns": frozenset({"chat"}),
    "route": frozenset({"chat"}),
    "mcp": frozenset({"chat"}),
    "a2a": frozenset({"chat"}),
    "threads": frozenset({"threads"}),
    "runs": frozenset({"threads", "chat"}),
    "assistants": frozenset({"threads"}),
    "store": frozenset({"threads", "memory"}),
    "memory": frozenset({"memory"}),
}
FOR_ALL = (
    "",
    ".well-known",
    "info",
    "ready",
    "docs",
    "redoc",
    "openapi.json",
    "routes",
    "residency",
    "static-offline-docs",
)
"""What any key may read."""
KNOWN_FOR, KNOWN_AT_MOST = 5.0, 4096
"""Seconds for which the database is not asked about a key again, and about how many."""


ABSENT = "This server needs a key: send it as `Authorization: Bearer KEY` or `X-Api-Key: KEY`."
UNKNOWN = (
    "The key that was sent opens nothing here: it is unknown, disabled or expired; "
    "the log says why a token is refused."
)


@dataclass(frozen=True)
class Caller:
    """Who is asking: every door takes tenant and user from here and from nowhere else. `id` is the credential's."""

    tenant: int = 0
    user: str = "default"
    scopes: frozenset[str] = EVERYTHING
    id: str = ""

    @property
    def owner(self) -> Owner:
        return Owner(self.tenant, self.user)

    def named(self, user: str | None) -> "Caller":
        """The same, speaking for `user`, if this caller may speak for others; else unchanged. Raises BadInput."""
        if user and len(user) > NAME:
            raise BadInput(f"{USER} has at most {NAME} characters.", field=USER)
        return replace(self, user=user) if user and "users" in self.scopes else self


def caller(request: Request) -> Caller:
    """The caller that the gate found; without keys there is one, who may do everything."""
    found: Caller = getattr(request.state, "caller", Caller())
    return found


def needed(method: str, path: str) -> frozenset[str]:
    """The scopes of which one is needed; none: any credential will do."""
    first = path.strip("/").partition("/")[0]
    if first in FOR_ALL and method in READS:
        return ANY
    return NEEDS.get(first, frozenset({"admin"}))


@dataclass
class Gate:
    """Lets through who shows a key or a token, with what it says of the caller.

    `closed`: a credential is needed whatever the database holds. Otherwise one is needed as soon as there is a key.
    """

    app: ASGIApp
    keys: Keys
    api_key: str | None = None
    tokens: Tokens | None = None
    quota: Quota | None = None
    closed: bool = True
    clock: Callable[[], float] = time.monotonic
    _known: OrderedDict[bytes, tuple[float, Key | None]] = field(default_factory=OrderedDict)
    _looked: float = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or name the caller and pass on."""
        upgrade = scope["type"] == "websocket"
        if not upgrade and (scope["type"] != "http" or scope["path"] in OPEN or scope["method"] == "OPTIONS"):
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})
        request = Request({**scope, "type": "http", "method": "GET"} if upgrade else scope)
        async with AsyncExitStack() as stack:
            try:
                who = request.state.caller = await self._admitted(request)
                if self.quota is not None and who.id:
                    await stack.enter_async_context(self.quota.spent(who.id))
            except AgentflowError as error:
                if upgrade:
                    await send({"type": "websocket.close", "code": 4401, "reason": error.message[:120]})
                else:
                    await problem(error, path=scope["path"])(scope, receive, send)
                return
            await self.app(scope, receive, send)

    async def _admitted(self, request: Request) -> Caller:
        """Raises Unauthorized, Forbidden or DatabaseDown."""
        found = await self._caller(shown(request))
        if found is None:
            if await self._needed():
                raise Unauthorized(UNKNOWN if shown(request) else ABSENT)
            return Caller().named(request.headers.get(USER))
        wanted = needed(request.method, request.url.path)
        if wanted and not wanted & found.scopes:
            either = " or ".join(sorted(wanted))
            raise Forbidden(f"This key lacks the scope {either}, which this address needs.", field="scopes")
        return found.named(request.headers.get(USER))

    async def _caller(self, credential: str) -> Caller | None:
        if not credential:
            return None
        if self.api_key and hmac.compare_digest(credential.encode(), self.api_key.encode()):
            return Caller(id="server.api_key")
        if credential.startswith(PREFIX):
            key = await self._key(credential)
            self.closed |= key is not None
            return None if key is None else Caller(key.tenant, key.user, key.scopes, key.id)
        if self.tokens is not None and credential.count(".") == 2:
            claims = await self.tokens.claims(credential)
            return None if claims is None else Caller(*claims, id=f"{claims[0]}:{claims[1]}")
        return None

    async def _key(self, credential: str) -> Key | None:
        """From memory for some seconds, unknown ones too: neither a flood nor a slow database gets through."""
        digest = hashlib.sha256(credential.encode()).digest()
        known = self._known.get(digest)
        if known is None or known[0] < self.clock():
            known = (self.clock() + KNOWN_FOR, await self.keys.find(credential))
            self._known[digest] = known
            while len(self._known) > KNOWN_AT_MOST:
                self._known.popitem(last=False)
        key = known[1]
        return key if key is not None and hmac.compare_digest(key.digest, digest) else None

    async def _needed(self) -> bool:
        """Once closed, closed for good: taking the last key away opens nothing."""
        if not self.closed and self._looked + KNOWN_FOR < self.clock():
            try:
                self.closed = await self.keys.any()
            except DatabaseDown:
                return False
            self._looked = self.clock()
        return self.closed


def gate(app: ASGIApp, keys: Keys, settings: Settings, metrics: Metrics, spending: Spending) -> Gate:
    """The gate that the settings ask for."""
    server, given = settings.server, settings.access.tokens
    return Gate(
        app,
        keys,
        server.api_key.get_secret_value() if server.api_key else None,
        tokens(given, settings.egress.allow) if given else None,
        Quota(settings.limits, metrics, spending),
        closed=must_show(settings),
    )


def must_show(settings: Settings) -> bool:
    """Whether the settings alone demand a credential."""
    server = settings.server
    return server.api_key is not None or settings.access.tokens is not None or not server.on_loopback


def shown(request: Request) -> str:
    """The credential a request shows, or nothing."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return (
        token.strip()
        if scheme.lower() == "bearer" and token.strip()
        else request.headers.get("x-api-key", "").strip()
    )
