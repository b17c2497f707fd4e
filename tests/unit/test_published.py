"""Keys of an identity provider, over real HTTP: fetched once, again when they turn, kept while it is down."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from agentflow.api.published import AGAIN, FRESH, PublishedKeys
from agentflow.api.tokens import Tokens, tokens
from agentflow.egress import Egress
from agentflow.errors import AddressRefused, Unreachable
from agentflow.settings.access import TokenSettings


class Provider(ThreadingHTTPServer):
    """Publishes `keys`, or answers `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.status, self.asked = 200, 0
        self.turn("one")

    def turn(self, *names: str) -> None:
        """These are the keys from now on."""
        self.keys = {name: self.keys.get(name) or ec.generate_private_key(ec.SECP256R1()) for name in names}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/jwks.json"

    def token(self, name: str, *, header: bool = True) -> str:
        claims = {"iss": "https://id.example", "aud": "agentflow", "sub": "ann", "exp": time.time() + 60}
        headers = {"kid": name} if header else None
        return jwt.encode({**claims, "scope": "chat"}, self.keys[name], "ES256", headers=headers)


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        self.server.asked += 1
        keys = [
            {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig"}
            for name, key in self.server.keys.items()
        ]
        body = json.dumps({"keys": keys}).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def settings(provider: Provider) -> TokenSettings:
    return TokenSettings(issuer="https://id.example", audience="agentflow", jwks_url=provider.url)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mine(provider: Provider, clock: Clock) -> Tokens:
    return Tokens(settings(provider), PublishedKeys(provider.url, Egress(["127.0.0.1"]), clock))


ANN = (0, "ann", frozenset({"chat"}))


async def test_keys_are_fetched_once_for_many_tokens(provider: Provider, mine: Tokens, clock: Clock) -> None:
    for _ in range(3):
        assert await mine.claims(provider.token("one")) == ANN
    assert provider.asked == 1
    clock.now += FRESH + 1
    assert await mine.claims(provider.token("one")) == ANN
    assert provider.asked == 2


async def test_a_new_key_is_asked_for_at_once_and_unknown_ones_only_now_and_then(
    provider: Provider, mine: Tokens, clock: Clock
) -> None:
    assert await mine.claims(provider.token("one")) == ANN
    former = provider.token("one")
    provider.turn("two")
    clock.now += AGAIN + 1
    assert await mine.claims(provider.token("two")) == ANN
    assert await mine.claims(former) is None
    forged = jwt.encode(
        {"sub": "ann"}, ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": "x"}
    )
    for _ in range(20):
        assert await mine.claims(forged) is None
    assert provider.asked == 2


@pytest.mark.parametrize("status", [500, 404, None])
async def test_while_the_provider_is_down_the_last_keys_hold(
    provider: Provider, mine: Tokens, clock: Clock, status: int | None
) -> None:
    assert await mine.claims(provider.token("one")) == ANN
    if status is None:
        provider.server_close()
    provider.status = status or 200
    for _ in range(3):
        clock.now += FRESH + 1
        assert await mine.claims(provider.token("one")) == ANN


async def test_a_provider_that_was_never_reached_is_no_refusal(
    provider: Provider, mine: Tokens, clock: Clock
) -> None:
    provider.status = 503
    with pytest.raises(Unreachable, match="answered 503") as unknown:
        await mine.claims(provider.token("one"))
    assert unknown.value.retry_after == AGAIN
    provider.status = 200
    clock.now += AGAIN + 1
    assert await mine.claims(provider.token("one")) == ANN


async def test_a_token_without_a_name_means_the_only_key(provider: Provider, mine: Tokens) -> None:
    assert await mine.claims(provider.token("one", header=False)) == ANN


async def test_the_file_may_name_a_private_provider_and_nothing_else_opens(provider: Provider) -> None:
    assert await tokens(settings(provider), ()).claims(provider.token("one")) == ANN
    with pytest.raises(AddressRefused):
        await Egress(()).check(provider.url)
