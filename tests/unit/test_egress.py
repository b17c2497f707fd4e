"""No request makes us call where we should not."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.egress import Egress, refusal, shown
from agentflow.errors import AddressRefused, Unreachable

PUBLIC = "93.184.216.34"


def said(status: int = 200, body: bytes = b"ok", **headers: str) -> httpx.Response:
    """An answer that still has to be read."""
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


class World:
    """Names and servers: remembers where each connection went, and under which name."""

    def __init__(self, names: dict[str, Sequence[str]], answer=lambda _: said()) -> None:
        self.names = names
        self.answer = answer
        self.seen: list[tuple[str, str, str]] = []

    async def resolve(self, host: str, _port: int) -> Sequence[str]:
        if host not in self.names:
            raise OSError("Name or service not known")
        return self.names[host]

    def serve(self, request: httpx.Request) -> httpx.Response:
        self.seen.append((request.url.host, request.headers["host"], request.extensions["sni_hostname"]))
        return self.answer(request)

    def egress(self, *allow: str) -> Egress:
        return Egress(allow, resolve=self.resolve, transport=httpx.MockTransport(self.serve))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://localhost/",
        "http://0.0.0.0/", "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/", "http://100.64.0.1/",
        "http://169.254.169.254/latest/meta-data", "http://224.0.0.1/", "http://255.255.255.255/", "http://240.0.0.1/",
        "http://[::1]/", "http://[::]/", "http://[fe80::1]/", "http://[fc00::1]/", "http://[fec0::1]/", "http://[ff02::1]/",
        "http://[::ffff:127.0.0.1]/", "http://[::ffff:a9fe:a9fe]/", "http://[2002:7f00:1::]/", "http://[64:ff9b::7f00:1]/",
    ],
)  # fmt: skip
async def test_egress_refuses_what_is_not_the_public_internet(url) -> None:
    with pytest.raises(AddressRefused, match=r"blocked: .* address"):
        await Egress().check(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///etc/passwd", "file:///etc/passwd is not https:// or http:// with a host"),
        ("gopher://example.org/", "is not https:// or http://"),
        ("https:///path", "is not https:// or http://"),
        ("//example.org/", "is not https:// or http://"),
        ("", "is not https:// or http://"),
        ("http://user:secret@example.org/", "it carries a user and password"),
        ("http://example.org:99999999/", "is not https:// or http://"),
        ("http://exa\x00mple.org/", "not a URL"),
        ("http://nowhere.example/", "does not resolve"),
    ],
)
async def test_egress_refuses_what_is_no_plain_address(url, said) -> None:
    with pytest.raises(AddressRefused, match="blocked") as refused:
        await World({"example.org": [PUBLIC]}).egress().check(url, field="webhook")
    assert said in refused.value.message
    assert refused.value.field == "webhook"
    assert "secret" not in refused.value.message


async def test_one_private_address_behind_a_name_is_enough_to_refuse_it() -> None:
    with pytest.raises(AddressRefused, match=r"leads to 10.0.0.1, a private address"):
        await World({"two.example": [PUBLIC, "10.0.0.1"]}).egress().check("https://two.example/")


async def test_the_connection_goes_to_the_judged_address_under_the_servers_name() -> None:
    world = World({"hook.example": [PUBLIC]})
    answer = await world.egress().post("https://hook.example:8443/x?signature=1", b"{}", {"a": "b"})
    assert (answer.status, answer.body) == (200, b"ok")
    assert world.seen == [(PUBLIC, "hook.example:8443", "hook.example")]


async def test_a_name_that_resolves_otherwise_at_sending_is_refused_then() -> None:
    world = World({"hook.example": [PUBLIC]})
    egress = world.egress()
    await egress.check("https://hook.example/")
    world.names["hook.example"] = ["169.254.169.254"]
    with pytest.raises(AddressRefused, match="link-local"):
        await egress.post("https://hook.example/", b"", {})
    assert world.seen == []


async def test_redirects_are_judged_before_they_are_followed() -> None:
    there = said(302, location="http://inside.example/secret")
    world = World({"files.example": [PUBLIC], "inside.example": ["192.168.0.1"]}, lambda _: there)
    with pytest.raises(AddressRefused, match="private"):
        async with world.egress().download("http://files.example/a", limit=10, schemes=("http",)):
            pass
    assert [host for host, *_ in world.seen] == [PUBLIC]


async def test_a_download_may_not_leave_https() -> None:
    there = said(302, location="http://files.example/b")
    world = World({"files.example": [PUBLIC]}, lambda _: there)
    with pytest.raises(AddressRefused, match="is not https://"):
        async with world.egress().download("https://files.example/a", limit=10):
            pass


async def test_a_webhook_is_not_redirected() -> None:
    there = said(307, location="http://127.0.0.1/")
    world = World({"hook.example": [PUBLIC]}, lambda _: there)
    assert (await world.egress().post("http://hook.example/", b"", {})).status == 307


@pytest.mark.parametrize("allow", ["inside.example", "INSIDE.example.", "10.0.0.0/8", "10.0.0.1"])
async def test_what_is_listed_may_be_private(allow) -> None:
    world = World({"inside.example": ["10.0.0.1"]})
    await world.egress(allow).post("http://inside.example/", b"", {})
    assert world.seen[0][0] == "10.0.0.1"


async def test_a_listed_name_does_not_reach_metadata_unless_its_network_is_listed() -> None:
    world = World({"inside.example": ["169.254.169.254"]})
    with pytest.raises(AddressRefused, match="link-local"):
        await world.egress("inside.example").check("http://inside.example/")
    await world.egress("169.254.0.0/16").check("http://inside.example/")


async def test_a_long_answer_to_a_webhook_is_cut() -> None:
    world = World({"hook.example": [PUBLIC]}, lambda _: said(200, b"a" * 10**6))
    assert len((await world.egress().post("http://hook.example/", b"", {})).body) == 64 * 1024


async def test_a_download_over_its_limit_is_an_error() -> None:
    world = World({"files.example": [PUBLIC]}, lambda _: said(200, b"a" * 11))
    with pytest.raises(Unreachable, match="more than 10 bytes"):
        async with world.egress().download("https://files.example/a", limit=10) as chunks:
            _ = [chunk async for chunk in chunks]


async def test_a_download_comes_in_chunks_and_only_with_200() -> None:
    world = World({"files.example": [PUBLIC]})
    async with world.egress().download("https://files.example/a", limit=10) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"ok"
    world.answer = lambda _: said(404)
    with pytest.raises(Unreachable, match=r"https://files.example/a answered 404"):
        async with world.egress().download("https://files.example/a?token=1", limit=10):
            pass


async def test_a_server_that_never_ends_its_answer_is_left() -> None:
    class Drops(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(0.01)
                yield b"."

    world = World({"slow.example": [PUBLIC]}, lambda _: httpx.Response(200, stream=Drops()))
    with pytest.raises(Unreachable, match=r"took longer than 0.1 s"):
        await world.egress().post("http://slow.example/", b"", {}, seconds=0.1)


async def test_a_refused_connection_is_an_error_of_the_tree() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable, match="cannot be reached: refused"):
        await World({"gone.example": [PUBLIC]}, refuse).egress().post("http://gone.example/?k=1", b"", {})


async def test_a_real_server_on_loopback_is_reached_once_it_is_listed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    egress = Egress(["127.0.0.0/8"])
    async with server:
        assert (await egress.post(url, b"", {})).body == b"hi"
    await egress.close()


@given(st.ip_addresses())
def test_only_global_addresses_pass(address) -> None:
    assert (refusal(address) is None) <= address.is_global


def test_an_address_is_shown_without_its_secrets() -> None:
    assert (
        shown("https://u:p@n8n.example:5678/webhook/1?signature=s#f") == "https://n8n.example:5678/webhook/1"
    )
    assert shown("http://[") == "(not an address)"
    assert ipaddress.ip_address("1.1.1.1").is_global
