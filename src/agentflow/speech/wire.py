"""HTTP to a model server: time limits, event streams, and what its answers mean."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from httpx_sse import SSEError, aconnect_sse

from agentflow.errors import EngineDown, EngineError, EngineTimeout, GenerationFailed
from agentflow.turn import Json

_T = TypeVar("_T")

# The server hangs up after idle seconds and after some errors. A request on such a connection would look
# like a dead engine, so every request has its own: on loopback that costs half a millisecond.
_FRESH = httpx.Limits(max_connections=None, max_keepalive_connections=0)


@dataclass(frozen=True)
class Timeouts:
    """Seconds. `control` bounds everything but generations and loads; loads may take `total`."""

    connect: float = 5
    first_token: float = 60
    between_tokens: float = 30
    total: float = 300
    control: float = 10


class Refused(EngineError):
    """The server lives and said no. The driver turns it into the error its caller expects."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


class Wire:
    """One server. `on_down` is called whenever it shows to be dead, before EngineDown is raised."""

    def __init__(
        self, url: str, api_key: str | None, timeouts: Timeouts, on_down: Callable[[], None]
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._timeouts = timeouts
        self._on_down = on_down
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(None, connect=timeouts.connect),
            transport=httpx.AsyncHTTPTransport(retries=1, limits=_FRESH),
            trust_env=False,
        )

    async def get(self, path: str) -> httpx.Response:
        """A good answer. Raises EngineDown, EngineTimeout, Refused."""
        return await self._control("GET", path, self._timeouts.control)

    async def head(self, path: str) -> bool:
        """Whether it is there. Raises EngineDown, EngineTimeout, Refused."""
        try:
            await self._control("HEAD", path, self._timeouts.control)
        except Refused as refusal:
            if refusal.status == 404:
                return False
            raise
        return True

    async def post(self, path: str, body: Json, *, seconds: float | None = None) -> httpx.Response:
        """A good answer. Raises EngineDown, EngineTimeout, Refused."""
        return await self._control("POST", path, seconds or self._timeouts.control, json=body)

    async def upload(self, path: str, file: Path) -> httpx.Response:
        """Send a file. Raises EngineDown, EngineTimeout, Refused."""
        return await self._control("POST", path, self._timeouts.total, content=_blocks(file))

    async def delete(self, path: str, body: Json) -> httpx.Response:
        """A good answer. Raises EngineDown, EngineTimeout, Refused."""
        return await self._control("DELETE", path, self._timeouts.control, json=body)

    async def events(self, path: str, body: Json) -> AsyncGenerator[Json, None]:
        """The JSON events of a stream up to [DONE]; closing the generator closes the connection.

        Raises EngineDown, EngineTimeout, Refused, GenerationFailed.
        """
        patience = _Patience(self.url, self._timeouts)
        with self._translated():
            self._check_open()
            async with AsyncExitStack() as stack:
                opening = aconnect_sse(self._client, "POST", path, json=body)
                source = await patience.first(stack.enter_async_context(opening))
                if source.response.status_code != 200:
                    await patience.first(source.response.aread())
                    raise self._meaning(source.response)
                stream = source.aiter_sse()
                stack.push_async_callback(stream.aclose)
                event = await patience.first(anext(stream, None))
                while event is not None and event.data.strip() != "[DONE]":
                    yield self._content(event.data)
                    event = await patience.next(anext(stream, None))

    async def lines(self, path: str, body: Json) -> AsyncGenerator[Json, None]:
        """The JSON objects of a stream of lines; closing the generator closes the connection.

        Raises EngineDown, EngineTimeout, Refused, GenerationFailed.
        """
        patience = _Patience(self.url, self._timeouts)
        with self._translated():
            self._check_open()
            async with AsyncExitStack() as stack:
                opening = self._client.stream("POST", path, json=body)
                response = await patience.first(stack.enter_async_context(opening))
                if response.status_code != 200:
                    await patience.first(response.aread())
                    raise self._meaning(response)
                stream = response.aiter_lines()
                line = await patience.first(anext(stream, None))
                while line is not None:
                    if line.strip():
                        yield self._content(line)
                    line = await patience.next(anext(stream, None))

    async def close(self) -> None:
        await self._client.aclose()

    def _check_open(self) -> None:
        if self._client.is_closed:
            raise EngineDown("The connection to the engine has been closed: agentflow is shutting down.")

    async def _control(self, method: str, path: str, seconds: float, **body: Any) -> httpx.Response:
        with self._translated():
            self._check_open()
            try:
                async with asyncio.timeout(seconds):
                    response = await self._client.request(method, path, **body)
            except TimeoutError as error:
                raise EngineTimeout(
                    f"The engine at {self.url} did not answer {path} within {seconds:g} s."
                ) from error
        if not response.is_success:
            raise self._meaning(response)
        return response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.RequestError, httpx.StreamError) as error:
            raise self._down(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        except SSEError as error:
            raise GenerationFailed(
                f"The engine at {self.url} answered without an event stream: {error}"
            ) from error

    def _down(self, reason: str) -> EngineDown:
        self._on_down()
        return EngineDown(
            f"The engine at {self.url} does not answer ({reason}). Start it, or correct the engine's url.",
            retry_after=5,
        )

    def _content(self, data: str) -> Json:
        try:
            event = json.loads(data)
        except ValueError as error:
            raise GenerationFailed(f"The engine at {self.url} sent an event that is not JSON.") from error
        if not isinstance(event, dict):
            raise GenerationFailed(f"The engine at {self.url} sent an event that is not a JSON object.")
        if "error" in event:
            raise self._error(500, event)
        return event

    def _meaning(self, response: httpx.Response) -> EngineError:
        try:
            body = response.json()
        except ValueError:
            body = {"error": response.text[:500]}
        return self._error(response.status_code, body if isinstance(body, dict) else {})

    def _error(self, status: int, body: dict[str, Any]) -> EngineError:
        """A dying vLLM answers 500 naming EngineCore, then 503, then refuses connections: all one."""
        told = (body.get(key) for key in ("error", "detail", "error_message", "message"))
        error = next(filter(None, told), f"HTTP {status}")
        fields = error if isinstance(error, dict) else {"message": str(error)}
        message = str(fields.get("message", ""))
        if status == 503 or "EngineCore" in message:
            return self._down(message or f"HTTP {status}")
        param = fields.get("param")
        return Refused(status, message, param if isinstance(param, str) else None)


async def _blocks(file: Path) -> AsyncGenerator[bytes, None]:
    with file.open("rb") as source:
        while block := await asyncio.to_thread(source.read, 1 << 20):
            yield block


class _Patience:
    """The time limits of one generation: to the first event, between events, and of all together."""

    def __init__(self, url: str, timeouts: Timeouts) -> None:
        self._url = url
        self._timeouts = timeouts
        self._started = asyncio.get_running_loop().time()

    async def first(self, answer: Awaitable[_T]) -> _T:
        waited = asyncio.get_running_loop().time() - self._started
        return await self._within(self._timeouts.first_token - waited, answer, "begin to answer")

    async def next(self, answer: Awaitable[_T]) -> _T:
        return await self._within(self._timeouts.between_tokens, answer, "go on with its answer")

    async def _within(self, seconds: float, answer: Awaitable[_T], what: str) -> _T:
        left = self._timeouts.total - (asyncio.get_running_loop().time() - self._started)
        try:
            async with asyncio.timeout(min(seconds, left)):
                return await answer
        except TimeoutError as error:
            raise EngineTimeout(
                f"The engine at {self._url} did not {what} within {max(min(seconds, left), 0):.3g} s. "
                "It may be overloaded: try again, or raise the engine's time limits.",
                retry_after=5,
            ) from error
