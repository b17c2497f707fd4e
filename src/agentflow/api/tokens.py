"""JSON Web Tokens: who an identity provider says is asking."""

import asyncio
from typing import Any

import jwt
import structlog

from agentflow.records.keys import SCOPES
from agentflow.settings.access import TokenSettings

log = structlog.get_logger(__name__)
KEYS_FOR = 300
"""Seconds for which a provider's published keys are kept."""


class Tokens:
    """Verifies tokens against the settings; the algorithms are theirs, whatever a token claims."""

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._published = (
            None
            if settings.jwks_url is None
            else jwt.PyJWKClient(settings.jwks_url, lifespan=KEYS_FOR, timeout=5)
        )

    async def claims(self, token: str) -> tuple[int, str, frozenset[str]] | None:
        """Tenant, user and scopes; None for a token that proves nothing. The reason goes to the log only."""
        try:
            return self._said(await asyncio.to_thread(self._verified, token))
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            log.info("token refused", reason=str(error) or type(error).__name__)
            return None

    def _verified(self, token: str) -> dict[str, Any]:
        settings = self._settings
        tenant = [settings.tenant_claim] if settings.tenant_claim else []
        claims: dict[str, Any] = jwt.decode(
            token,
            self._key(token),
            algorithms=list(settings.algorithms),
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway,
            options={"require": ["exp", "iss", "aud", settings.user_claim, *tenant]},
        )
        return claims

    def _key(self, token: str) -> Any:
        if self._published is not None:
            return self._published.get_signing_key_from_jwt(token).key
        key = self._settings.public_key
        return key.get_secret_value() if key is not None else ""

    def _said(self, claims: dict[str, Any]) -> tuple[int, str, frozenset[str]]:
        settings = self._settings
        given = claims.get(settings.scopes_claim)
        scopes = settings.scopes if given is None else given.split() if isinstance(given, str) else given
        tenant = 0 if settings.tenant_claim is None else int(claims[settings.tenant_claim])
        user = str(claims[settings.user_claim])
        if not user or len(user) > 512:
            raise ValueError("the user's claim is empty or too long")
        return tenant, user, frozenset(scopes) & frozenset(SCOPES)
