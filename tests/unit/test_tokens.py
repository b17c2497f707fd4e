"""Tokens of an identity provider: verified against the settings, never against what they claim of themselves."""

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from agentflow.api.tokens import Tokens
from agentflow.settings.access import TokenSettings


def pair() -> tuple[ec.EllipticCurvePrivateKey, str]:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public.decode()


PRIVATE, PUBLIC = pair()
GOOD = {
    "iss": "https://id.example",
    "aud": "agentflow",
    "sub": "ann",
    "org": "7",
    "scope": "chat admin teapot",
}


def tokens(**changes: Any) -> Tokens:
    plain = {
        "issuer": GOOD["iss"],
        "audience": GOOD["aud"],
        "public_key": SecretStr(PUBLIC),
        "tenant_claim": "org",
    }
    return Tokens(TokenSettings(**{**plain, **changes}))


def signed(key: Any = PRIVATE, algorithm: str = "ES256", **changes: Any) -> str:
    claims = {**GOOD, "exp": time.time() + 60, **changes}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm)


async def test_claims_become_tenant_user_and_scopes() -> None:
    assert await tokens().claims(signed()) == (7, "ann", frozenset({"chat", "admin"}))


async def test_without_a_claim_of_scopes_the_settings_say_which() -> None:
    assert await tokens(scopes=("chat",)).claims(signed(scope=None)) == (7, "ann", frozenset({"chat"}))
    assert await tokens().claims(signed(scope=["memory"])) == (7, "ann", frozenset({"memory"}))
    assert await tokens(tenant_claim=None).claims(signed()) == (0, "ann", frozenset({"chat", "admin"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"}, {"aud": "other"}, {"exp": time.time() - 60}, {"exp": None}, {"sub": None},
        {"sub": ""}, {"sub": "x" * 513}, {"org": "seven"}, {"org": None}, {"nbf": time.time() + 86400}, {"aud": None},
        {"org": True}, {"org": 1.5}, {"org": -1}, {"org": 2**31}, {"org": "٣"}, {"sub": "a\x00b"},
    ],
)  # fmt: skip
async def test_a_token_that_proves_nothing_opens_nothing(changes: dict[str, Any]) -> None:
    assert await tokens().claims(signed(**changes)) is None


async def test_another_s_signature_and_other_algorithms_open_nothing() -> None:
    assert await tokens().claims(signed(pair()[0])) is None
    assert await tokens().claims(signed("", "none")) is None
    forged = jwt.encode({**GOOD, "exp": time.time() + 60}, b"k" * 32, "HS256")
    assert await tokens().claims(forged) is None
    assert await tokens(algorithms=("RS256",)).claims(signed()) is None
    assert await tokens().claims("a.b.c") is None


def test_tokens_need_one_key_and_a_pinned_algorithm() -> None:
    with pytest.raises(ValueError, match="either jwks_url or public_key"):
        tokens(jwks_url="https://id.example/keys")
    with pytest.raises(ValueError, match="HS256"):
        tokens(algorithms=("HS256",))
