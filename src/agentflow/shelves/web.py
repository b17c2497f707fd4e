"""https:// addresses: a folder of files on a web server, read through the one client for outside addresses."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from agentflow.egress import Egress, shown
from agentflow.errors import AddressRefused, FetchFailed, Unreachable
from agentflow.protocols import RemoteFile

OK, PARTIAL, MISSING, BUSY = 200, 206, 404, 429


class WebSource:
    """Reads files through Egress, which judges every address and every redirect.

    A host that the file names may be private, as what `allow` lists; nobody may redirect us to another one.
    `limit` bounds the bytes of a file, `within` the seconds of one request.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        limit: int,
        within: float,
        opened: Callable[[Sequence[str]], Egress] = Egress,
    ) -> None:
        self._allow = allow
        self._limit = limit
        self._within = within
        self._opened = opened
        self._clients: dict[str, Egress] = {}

    async def close(self) -> None:
        """End all connections."""
        for client in self._clients.values():
            await client.close()

    def _client(self, address: str) -> Egress:
        host = urlsplit(address).hostname or ""
        if host not in self._clients:
            self._clients[host] = self._opened([*self._allow, host])
        return self._clients[host]

    async def look(self, address: str, names: Sequence[str]) -> Sequence[RemoteFile]:
        """See Source.look."""
        return [await self._look(address, name) for name in names]

    async def read(self, address: str, file: RemoteFile, *, start: int) -> AsyncGenerator[bytes, None]:
        """See Source.read. Goes on where it stopped only if the server says that the content is the same."""
        headers = {"Range": f"bytes={start}-", "If-Range": file.stamp} if start and file.stamp else {}
        url = _url(address, file.name)
        try:
            async with self._client(address).stream(
                url, limit=self._limit, seconds=self._within, headers=headers, schemes=_schemes(url)
            ) as answer:
                _check(answer.status, address, file.name)
                if start and answer.status != PARTIAL:
                    yield b""
                async for chunk in answer.chunks:
                    yield chunk
        except (Unreachable, AddressRefused) as error:
            raise _failed(error, address) from error

    async def _look(self, address: str, name: str) -> RemoteFile:
        url = _url(address, name)
        try:
            async with self._client(address).stream(
                url, limit=self._limit, seconds=self._within, schemes=_schemes(url)
            ) as answer:
                _check(answer.status, address, name)
                return _described(name, answer.headers)
        except (Unreachable, AddressRefused) as error:
            raise _failed(error, address) from error


def _url(address: str, name: str) -> str:
    """The file in the folder; a query (signed addresses) goes along."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{name}", parts.query, ""))


def _schemes(url: str) -> tuple[str, ...]:
    """Who begins with https stays with it."""
    return ("http", "https") if url.startswith("http://") else ("https",)


def _described(name: str, headers: Mapping[str, str]) -> RemoteFile:
    length, stamp = headers.get("content-length", ""), headers.get("etag", "")
    weak = stamp.startswith("W/")
    return RemoteFile(name, int(length) if length.isdigit() else None, "" if weak else stamp)


def _check(status: int, address: str, name: str) -> None:
    if status in (OK, PARTIAL):
        return
    reason = "is not there" if status == MISSING else f"answers with HTTP {status}"
    passing = status >= 500 or status == BUSY
    raise FetchFailed(
        f"{shown(address)}/{name} {reason}.",
        field="lora_path",
        value=shown(address),
        retry_after=5 if passing else None,
    )


def _failed(error: Unreachable | AddressRefused, address: str) -> FetchFailed:
    return FetchFailed(
        f"The adapter cannot be fetched. {error.message}",
        field="lora_path",
        value=shown(address),
        retry_after=error.retry_after,
    )
