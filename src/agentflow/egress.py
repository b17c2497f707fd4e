"""The one client for addresses that came from outside: webhooks, callbacks, adapters to download.

A name is resolved, every address behind it is judged, and the connection is made to the judged address: a name
that resolves otherwise a moment later changes nothing. Redirects go through the same gate. Environment proxies are
not used, since they would resolve the name again.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from agentflow.errors import AddressRefused, Unreachable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
ANSWER_LIMIT = 64 * 1024
REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Answer:
    """What an outside server said; `body` is cut at the limit that was asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Stream:
    """An answer whose body is still on its way, as it was sent (never decompressed)."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class Egress:
    """Requests to the world. `allow` lists hosts and networks (CIDR) that may be private all the same.

    A listed host may be loopback or private, but not link-local, where clouds keep their metadata: that takes a
    network. `resolve` and `transport` are replaced in tests.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        resolve: Resolve | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._gate = _Gate(allow, resolve or _resolved)
        # No connection is kept: two names behind one address must not share one.
        inner = transport or httpx.AsyncHTTPTransport(
            trust_env=False, limits=httpx.Limits(max_connections=64, max_keepalive_connections=0)
        )
        self._client = httpx.AsyncClient(
            transport=_Pinned(inner, self._gate), trust_env=False, max_redirects=REDIRECTS
        )

    async def check(
        self, url: str, *, schemes: Sequence[str] = ("https", "http"), field: str = "url"
    ) -> None:
        """Whether we may call this address, judged as it resolves now. Raises AddressRefused."""
        await self._gate.addresses(_parsed(url, schemes, field), field)

    async def post(
        self, url: str, content: bytes, headers: Mapping[str, str], *, seconds: float = 10.0
    ) -> Answer:
        """One POST; redirects are answers like any other. Raises AddressRefused and Unreachable."""
        async with self._opened("POST", url, seconds, content=content, headers=headers) as response:
            body = b"".join([chunk async for chunk in _bounded(response, ANSWER_LIMIT, cut=True)])
            return Answer(response.status_code, response.headers, body)

    @asynccontextmanager
    async def download(
        self,
        url: str,
        *,
        limit: int,
        seconds: float = 600.0,
        schemes: Sequence[str] = ("https",),
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a GET in chunks, over up to five redirects, each judged; all within `seconds`.

        Raises AddressRefused, and Unreachable for any status but 200, for more than `limit` bytes, and for time.
        """
        async with self.stream(url, limit=limit, seconds=seconds, schemes=schemes) as answer:
            if answer.status != 200:
                raise Unreachable(f"{shown(url)} answered {answer.status}.")
            yield answer.chunks

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        limit: int,
        seconds: float = 600.0,
        headers: Mapping[str, str] | None = None,
        schemes: Sequence[str] = ("https",),
    ) -> AsyncIterator[Stream]:
        """As `download`, for who wants status and headers too (parts of files, sizes): any status is an answer."""
        _parsed(url, schemes, "url")
        async with self._opened("GET", url, seconds, headers=headers or {}, follow=schemes) as response:
            chunks = _bounded(response, limit, cut=False)
            yield Stream(response.status_code, response.headers, chunks)

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _opened(
        self,
        method: str,
        url: str,
        seconds: float,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
        follow: Sequence[str] = (),
    ) -> AsyncIterator[httpx.Response]:
        request = self._client.build_request(
            method,
            url,
            content=content,
            headers={"accept-encoding": "identity", "user-agent": "agentflow", **headers},
            timeout=min(seconds, 30.0),
        )
        request.extensions["schemes"] = tuple(follow) or ("https", "http")
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.send(request, stream=True, follow_redirects=bool(follow))
                try:
                    yield response
                finally:
                    await response.aclose()
        except TimeoutError:
            raise Unreachable(f"{shown(url)} took longer than {seconds:g} s.", retry_after=5) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"{shown(url)} cannot be reached: {reason}.", retry_after=5) from error


def shown(url: str) -> str:
    """An address for logs and messages: without user, query and fragment, where secrets stand."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(not an address)"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


class _Pinned(httpx.AsyncBaseTransport):
    """Sends each request, redirected ones too, to an address that was judged for it."""

    def __init__(self, inner: httpx.AsyncBaseTransport, gate: "_Gate") -> None:
        self._inner = inner
        self._gate = gate

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        schemes = request.extensions.get("schemes", ("https",))
        address = (await self._gate.addresses(_parsed(str(request.url), schemes, "url"), "url"))[0]
        extensions = {**request.extensions, "sni_hostname": request.url.host}
        pinned = httpx.Request(
            request.method,
            request.url.copy_with(host=str(address)),
            headers=request.headers,  # Host still names the server
            stream=request.stream,
            extensions=extensions,
        )
        return await self._inner.handle_async_request(pinned)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Gate:
    """Judges addresses."""

    def __init__(self, allow: Sequence[str], resolve: Resolve) -> None:
        networks = [(entry, network_of(entry)) for entry in allow]
        self._hosts = frozenset(entry.lower().rstrip(".") for entry, network in networks if network is None)
        self._networks = tuple(network for _, network in networks if network is not None)
        self._resolve = resolve

    async def addresses(self, url: httpx.URL, field: str) -> list[Address]:
        """Where the URL leads; all of it must be allowed. Raises AddressRefused."""
        host = url.host.rstrip(".")
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            found = [_unwrapped(ipaddress.ip_address(one)) for one in await self._resolve(host, port)]
        except (OSError, UnicodeError, ValueError) as error:
            raise AddressRefused(
                f"{field} blocked: {host!r} does not resolve to an address ({error}).", field=field
            ) from error
        for address in found:
            self._judge(host.lower(), address, field)
        if not found:
            raise AddressRefused(f"{field} blocked: {host!r} has no address.", field=field)
        return found

    def _judge(self, host: str, address: Address, field: str) -> None:
        kind = refusal(address)
        listed = any(address in network for network in self._networks)
        named = host in self._hosts and kind != "link-local"
        if kind is None or listed or named:
            return
        raise AddressRefused(
            f"{field} blocked: {host} leads to {address}, a {kind} address. "
            "If it is meant, list the host or its network under egress.allow.",
            field=field,
            value=host,
        )


def refusal(address: Address) -> str | None:
    """What speaks against an address; None for one of the public internet."""
    kinds = {
        "loopback": address.is_loopback,
        "link-local": address.is_link_local,
        "multicast": address.is_multicast,
        "unspecified": address.is_unspecified,
        "private": address.is_private or getattr(address, "is_site_local", False),
        "reserved": address.is_reserved or not address.is_global,
    }
    return next((kind for kind, applies in kinds.items() if applies), None)


def network_of(entry: str) -> Network | None:
    """An entry of the allow list as a network; None for a host's name."""
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address carries, if it does: that is where it leads."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    carried = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
    return carried or address


def _parsed(url: str, schemes: Sequence[str], field: str) -> httpx.URL:
    """Raises AddressRefused for what is no plain address of a web server."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, UnicodeError) as error:
        raise AddressRefused(f"{field} blocked: it is not a URL ({error}).", field=field) from error
    if parsed.scheme not in schemes or not parsed.host or not 0 < (parsed.port or 80) < 65536:
        known = " or ".join(f"{scheme}://" for scheme in schemes)
        raise AddressRefused(
            f"{field} blocked: {shown(url)} is not {known} with a host and a possible port.", field=field
        )
    if parsed.userinfo:
        raise AddressRefused(f"{field} blocked: it carries a user and password; leave them out.", field=field)
    return parsed


async def _resolved(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))


async def _bounded(response: httpx.Response, limit: int, *, cut: bool) -> AsyncIterator[bytes]:
    """The body as it was sent, never decompressed; over the limit it is cut, or an error."""
    seen = 0
    async for chunk in response.aiter_raw():
        seen += len(chunk)
        if seen > limit:
            if not cut:
                raise Unreachable(f"{shown(str(response.request.url))} sent more than {limit} bytes.")
            yield chunk[: len(chunk) - (seen - limit)]
            return
        yield chunk
