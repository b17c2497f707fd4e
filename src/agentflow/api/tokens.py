"""JSON Web Tokens: who an identity provider says is asking."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import jwt
import structlog

from agentflow.api.published import PublishedKeys
from agentflow.egress import Egress
from agentflow.records.keys import SCOPES
from agentflow.settings.access import TokenSettings

log = structlog.get_logger(__name__)
MOST_TENANT = 2**31 - 1
"""The highest number of a tenant that Postgres keeps."""


class Tokens:
    """Verifies tokens against the settings; the algorithms are theirs, whatever a token claims."""

    def __init__(self, settings: TokenSettings, published: PublishedKeys | None = None) -> None:
        self._settings = settings
        self._published = published

    async def claims(self, token: str) -> tuple[int, str, frozenset[str]] | None:
        """Tenant, user and scopes; None for a token that proves nothing. The reason goes to the log only.

        Raises Unreachable while the provider's keys are not known.
        """
        try:
            return self._said(self._verified(token, await self._key(token)))
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            log.info("token refused", reason=str(error) or type(error).__name__)
            return None

    def _verified(self, token: str, key: Any) -> dict[str, Any]:
        settings = self._settings
        tenant = [settings.tenant_claim] if settings.tenant_claim else []
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(settings.algorithms),
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway,
            options={"require": ["exp", "iss", "aud", settings.user_claim, *tenant]},
        )
        return claims

    async def _key(self, token: str) -> Any:
        if self._published is not None:
            name = jwt.get_unverified_header(token).get("kid")
            found = await self._published.named(name if isinstance(name, str) else None)
            if found is None:
                raise jwt.InvalidKeyError("the provider publishes no key of that name")
            return found.key
        key = self._settings.public_key
        return key.get_secret_value() if key is not None else ""

    def _said(self, claims: dict[str, Any]) -> tuple[int, str, frozenset[str]]:
        settings = self._settings
        given = claims.get(settings.scopes_claim)
        scopes = settings.scopes if given is None else given.split() if isinstance(given, str) else given
        tenant = 0 if settings.tenant_claim is None else _tenant(claims[settings.tenant_claim])
        user = str(claims[settings.user_claim])
        if not user or len(user) > 512 or "\x00" in user:
            raise ValueError("the user's claim is empty, too long, or holds a NUL")
        return tenant, user, frozenset(scopes) & frozenset(SCOPES)


def _tenant(given: Any) -> int:
    """A whole number as it stands, or in digits. Raises ValueError for what would have to be rounded to one."""
    if not re.fullmatch(r"\d{1,10}", str(given), re.ASCII) or int(given) > MOST_TENANT:
        raise ValueError("the tenant's claim is no whole number from 0 to 2147483647")
    return int(given)


def tokens(settings: TokenSettings, allow: Sequence[str]) -> Tokens:
    """As the settings want them. The provider's host may be private: the file names it, no request can."""
    if settings.jwks_url is None:
        return Tokens(settings)
    host = urlsplit(settings.jwks_url).hostname or ""
    return Tokens(settings, PublishedKeys(settings.jwks_url, Egress((*allow, host))))
