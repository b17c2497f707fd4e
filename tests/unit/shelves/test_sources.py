"""Sources far away: what they offer, and what they are not allowed to do."""

import fsspec
import httpx
import pytest

from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.egress import Egress
from agentflow.errors import FetchFailed, StartError
from agentflow.protocols import RemoteFile
from agentflow.shelves import filesystems
from agentflow.shelves.filesystems import FileSystemSource
from agentflow.shelves.web import WebSource

AT = "https://models.example/legal"
PUBLIC, INSIDE = "93.184.216.34", "10.0.0.7"


def web(answer) -> WebSource:
    known = {"models.example": PUBLIC, "inside.example": INSIDE, "cdn.example": PUBLIC}

    async def resolve(host: str, _port: int) -> list[str]:
        return [known[host]]

    def opened(allow):
        return Egress(allow, resolve=resolve, transport=httpx.MockTransport(answer))

    return WebSource(limit=10**6, within=5.0, opened=opened)


def served(request: httpx.Request) -> httpx.Response:
    """A server that knows parts and etags."""
    whole, start = b"0123456789", 0
    if request.headers.get("if-range") == '"v1"':
        start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    body = httpx.ByteStream(whole[start:])
    headers = {"etag": '"v1"', "content-length": str(10 - start)}
    return httpx.Response(206 if start else 200, headers=headers, stream=body)


async def content(source, address: str, file: RemoteFile, start: int = 0) -> list[bytes]:
    return [block async for block in source.read(address, file, start=start)]


async def test_a_web_server_tells_size_and_stamp() -> None:
    looked = await web(served).look(AT, [CONFIG])
    assert looked == [RemoteFile(CONFIG, 10, '"v1"')]


async def test_a_web_server_goes_on_in_the_middle() -> None:
    file = RemoteFile(WEIGHTS, 10, '"v1"')
    assert await content(web(served), AT, file, 4) == [b"456789"]


async def test_changed_content_begins_anew_and_says_so() -> None:
    file = RemoteFile(WEIGHTS, 10, '"v0"')
    assert await content(web(served), AT, file, 4) == [b"", b"0123456789"]


async def test_a_redirect_to_a_public_place_is_followed() -> None:
    def moved(request: httpx.Request) -> httpx.Response:
        if request.headers["host"] == "models.example":
            return httpx.Response(302, headers={"location": "https://cdn.example/x"})
        return served(request)

    assert (await web(moved).look(AT, [CONFIG]))[0].size == 10


@pytest.mark.parametrize("target", ["https://inside.example/x", "http://cdn.example/x", "file:///etc/passwd"])
async def test_a_redirect_to_a_private_place_is_not_followed(target) -> None:
    def moved(request: httpx.Request) -> httpx.Response:
        assert request.headers["host"] == "models.example"
        return httpx.Response(302, headers={"location": target})

    with pytest.raises(FetchFailed, match=r"cannot be fetched\..*"):
        await web(moved).look(AT, [CONFIG])


async def test_a_private_host_that_the_file_names_may_be_asked() -> None:
    inside = "https://inside.example/legal"
    assert (await web(served).look(inside, [CONFIG]))[0].size == 10


@pytest.mark.parametrize(("status", "passing"), [(404, False), (403, False), (503, True), (429, True)])
async def test_what_passes_is_told_from_what_stays(status, passing) -> None:
    source = web(lambda _: httpx.Response(status))
    with pytest.raises(FetchFailed) as failed:
        await source.look(f"{AT}?sig=secret", [CONFIG])
    assert ("secret" in failed.value.message, failed.value.retry_after is not None) == (False, passing)


async def test_a_signed_address_keeps_its_query_for_every_file() -> None:
    asked = []

    def noted(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return served(request)

    await web(noted).look(f"{AT}?sig=s", [CONFIG, WEIGHTS])
    assert asked == [f"/legal/{name}?sig=s".encode() for name in (CONFIG, WEIGHTS)]


@pytest.fixture
def bucket():
    files = fsspec.filesystem("memory")
    files.pipe({"/models/legal/a": b"0123456789"})
    yield files
    files.rm("/models", recursive=True)


async def test_a_bucket_is_read_from_where_it_stopped(bucket, monkeypatch) -> None:
    monkeypatch.setattr(filesystems, "CHUNK", 4)
    source = FileSystemSource("s3", lambda _: bucket)
    found = (await source.look("s3://models/legal", ["a"]))[0]
    assert found.size == 10
    assert await content(source, "s3://models/legal", found, 3) == [b"3456", b"789"]


async def test_what_a_bucket_lacks_is_told(bucket) -> None:
    with pytest.raises(FetchFailed, match=r"s3://models/legal has no b") as failed:
        await FileSystemSource("s3", lambda _: bucket).look("s3://models/legal", ["b"])
    assert failed.value.retry_after is None


async def test_a_librarys_own_words_are_not_passed_on() -> None:
    class Leaky:
        def info(self, _path: str) -> None:
            raise RuntimeError("https://bucket/x?signature=secret")

    with pytest.raises(FetchFailed, match=r"cannot be read \(RuntimeError\)") as failed:
        await FileSystemSource("s3", lambda _: Leaky()).look("s3://models/legal", ["a"])
    assert "secret" not in failed.value.message


async def test_a_missing_extra_is_named(monkeypatch) -> None:
    def missing(_scheme: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(filesystems.fsspec, "filesystem", missing)
    with pytest.raises(StartError, match=r"pip install 'agentflow\[s3\]'"):
        await FileSystemSource("s3").look("s3://models/legal", ["a"])
