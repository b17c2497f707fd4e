"""A running agentflow for a command: the one that listens already, or one of our own for a while."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from agentflow.errors import AgentflowError, StartError
from agentflow.prompt import Json
from agentflow.routing.roles import Lesson
from agentflow.settings import Environment, load, read_environment
from agentflow.settings.schema import Server
from agentflow.wiring import Place, Progress


def place(config: Path | None = None, environment: Environment | None = None) -> Place:
    """Settings of the named file, else of AGENTFLOW_CONFIG or ./agentflow.yaml. Raises ConfigError."""
    environment = environment or read_environment()
    file = config or environment.config
    return Place(load(file, environment), environment, file.resolve().parent, file.resolve())


def starting(*, child: bool = False) -> asyncio.Event:
    """Until `until_signal` waits, SIGTERM gives up what this task does, so that what it started is stopped again.

    So does the end of a child's parent. The event is for `until_signal`: what is started may swallow a cancellation,
    but no signal is lost; a second one does not disturb what is tidied up for the first.
    """
    loop, task, stop = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()

    def told() -> None:
        if child:
            loop.remove_reader(sys.stdin.fileno())
        if task is not None and not stop.is_set():
            task.cancel()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, told)
    if child:
        loop.add_reader(sys.stdin.fileno(), told)
    return stop


async def until_signal(stop: asyncio.Event | None = None, *, child: bool = False) -> None:
    """Wait for SIGTERM or SIGINT; a child of `fleet` also waits for its parent's end, which closes its stdin."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for kind in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(kind, stop.set)
    if child:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    await stop.wait()
    if child:
        loop.remove_reader(sys.stdin.fileno())


@asynccontextmanager
async def any_door(place: Place, *, progress: Progress) -> AsyncIterator[httpx.AsyncClient]:
    """A client of this folder's server if it listens, else of one of our own for a while."""
    key = _key(place.settings.server)
    if await _listens(place):
        async with client(_address(place), key) as there:
            yield there
        return
    from agentflow.cli.door import door

    async with door(place, progress=progress) as own, client(own, key) as here:
        yield here


@asynccontextmanager
async def listening_door(place: Place) -> AsyncIterator[httpx.AsyncClient]:
    """A client of this folder's server. Raises StartError if it does not listen."""
    server = place.settings.server
    if not await _listens(place):
        raise StartError(
            f"The agentflow of {place.folder} does not listen on {_address(place)}. Start it with `agentflow serve`.",
            field="server.port",
            value=server.port,
        )
    async with client(_address(place), _key(server)) as there:
        yield there


def client(address: str, headers: dict[str, str]) -> httpx.AsyncClient:
    """Answers may take as long as a turn; the server bounds that."""
    return httpx.AsyncClient(
        base_url=address, headers=headers, timeout=httpx.Timeout(10.0, read=None), trust_env=False
    )


async def turn(client: httpx.AsyncClient, body: Json) -> AsyncIterator[Json]:
    """The events of one turn. Raises AgentflowError with the server's own words for a refused request."""
    async with client.stream("POST", "/invoke", json={**body, "stream": True}) as response:
        if response.status_code != httpx.codes.OK:
            await response.aread()
            raise AgentflowError(str(response.json().get("message", response.text)))
        kind = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield {"event": kind, **json.loads(line.removeprefix("data: "))}


async def ask(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    body: Json | None = None,
    *,
    content: bytes | None = None,
) -> Json:
    """One request, answered with JSON. Raises AgentflowError with the server's own words for a refusal."""
    response = await client.request(method, path, json=body, content=content)
    answer = response.json()
    if response.status_code != httpx.codes.OK:
        raise AgentflowError(str(answer.get("message", response.text)))
    found: Json = answer
    return found


async def lessons(place: Place) -> list[Lesson]:
    """What feedback has taught this folder's server; nothing if it does not listen."""
    if not await _listens(place):
        return []
    async with client(_address(place), _key(place.settings.server)) as there:
        given = await ask(there, "GET", "/feedback?status=accepted")
    return [Lesson(one["role"], one["text"]) for one in given["feedback"]]


def _key(server: Server) -> dict[str, str]:
    return {"X-Api-Key": server.api_key.get_secret_value()} if server.api_key else {}


def _address(place: Place) -> str:
    return f"http://{place.settings.server.host}:{place.settings.server.port}"


async def _listens(place: Place) -> bool:
    """Whether the server of this very folder does: two folders may have the same port in their files."""
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            response = await http.get(f"{_address(place)}/health", timeout=5.0)
            return bool(response.json()["house"] == place.mark)
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False
