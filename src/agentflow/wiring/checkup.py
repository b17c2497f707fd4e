"""What `agentflow doctor` looks at: what is reachable, which versions, what would fail and what to do about it."""

import asyncio
import errno
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import httpx
import psutil
import structlog

from agentflow import __version__
from agentflow.engines.vllm.server import Server, Started
from agentflow.errors import AdapterError, AgentflowError, DatabaseDown
from agentflow.records.address import checked
from agentflow.records.checkup import Condition, condition
from agentflow.records.embedded import EmbeddedPostgres
from agentflow.residency.roster import Adapter
from agentflow.speech.wire import Timeouts, Wire
from agentflow.wiring import choices
from agentflow.wiring.engines import engine
from agentflow.wiring.forecast import Machine, forecast
from agentflow.wiring.place import Place, silent

log = structlog.get_logger(__name__)
Verdict = Literal["ok", "warning", "mistake"]
WAYS: Mapping[type[AgentflowError], str] = {
    DatabaseDown: "start Postgres, or mend postgres.url (or DATABASE_URL)"
}
WITHIN = 30.0
"""Seconds that one look may take."""
ROOM = 1 << 30
"""Free bytes below which a disk is told to be nearly full."""
PARTS = ("langgraph", "langgraph-checkpoint-postgres", "fastapi", "psycopg", "onnxruntime", "torch")


@dataclass(frozen=True)
class Row:
    """One thing that was looked at; `remedy` where something is to be done."""

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""


async def checkup(place: Place) -> AsyncIterator[Row]:
    """Look at everything, each for some seconds at most; what breaks is a row too."""
    looks: Sequence[tuple[str, Callable[[Place], Awaitable[Sequence[Row]]]]] = (
        ("versions", _versions),
        ("machine", _machine),
        ("address", _address),
        ("access", _access),
        ("database", _database),
        ("engine", _engine),
        ("embedder", _embedder),
        ("adapters", _adapters),
        ("plan", _plan),
    )
    for what, look in looks:
        try:
            async with asyncio.timeout(WITHIN):
                rows = await look(place)
        except TimeoutError:
            rows = [Row(what, "mistake", f"no answer within {WITHIN:g} s")]
        except AgentflowError as error:
            rows = [Row(what, "mistake", error.message, WAYS.get(type(error), ""))]
        except Exception as error:  # noqa: BLE001 - one look that breaks must not hide the others
            log.warning("a look of doctor broke", what=what, reason=repr(error))
            rows = [Row(what, "mistake", f"could not be looked at: {error!r}", "tell us: this is our fault")]
        for row in rows:
            yield row


async def _versions(_place: Place) -> Sequence[Row]:
    parts = [f"{name} {found}" for name in PARTS if (found := _installed(name))]
    return [
        Row(
            "versions",
            "ok",
            f"agentflow {__version__}, Python {platform.python_version()}, {', '.join(parts)}",
        )
    ]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


async def _machine(place: Place) -> Sequence[Row]:
    memory = psutil.virtual_memory()
    rows = [
        Row(
            "memory",
            "ok",
            f"{_size(memory.available)} of {_size(memory.total)} free, {psutil.cpu_count()} cores",
        )
    ]
    folders = {"cache": place.environment.cache, "adapters": place.settings.model.disk.path}
    if place.settings.postgres.url is None:
        folders["database"] = place.settings.postgres.data
    rows += [_disk(name, folder) for name, folder in folders.items()]
    return [*rows, *await _gpus()]


def _disk(name: str, folder: Path) -> Row:
    there = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(there).free
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        way = "name another folder, or let this user write there"
        return Row(f"disk ({name})", "mistake", f"{folder} cannot be written: {error.strerror}", way)
    if free < ROOM:
        return Row(
            f"disk ({name})",
            "warning",
            f"{_size(free)} free at {folder}",
            "make room, or name another folder",
        )
    return Row(f"disk ({name})", "ok", f"{_size(free)} free at {folder}")


async def _gpus() -> Sequence[Row]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return [Row("GPU", "ok", "none that NVIDIA's driver shows here")]
    asked = ("--query-gpu=name,memory.free,memory.total", "--format=csv,noheader")
    process = await asyncio.create_subprocess_exec(program, *asked, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    return [Row("GPU", "ok", line.strip()) for line in told.decode().splitlines()]


async def _address(place: Place) -> Sequence[Row]:
    server = place.settings.server
    address = f"{server.host}:{server.port}"
    if server.port == 0:
        return [Row("address", "ok", f"{server.host}, any free port")]
    with socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as error:
            return [await _occupied(address, error, place.mark)]
    return [Row("address", "ok", f"{address} is free")]


async def _occupied(address: str, error: OSError, mark: str) -> Row:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            told = (await client.get(f"http://{address}/health")).json()
        if told["house"] == mark:
            return Row("address", "ok", f"agentflow {told['version']} answers at {address}")
        way = "choose another server.port, or stop that one"
        return Row("address", "mistake", f"{address} is taken by the agentflow of another folder", way)
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
        way = (
            "stop that program, or choose another server.port"
            if taken
            else "mend server.host: no address of ours"
        )
        return Row("address", "mistake", f"{address} cannot be listened on: {error.strerror}", way)


async def _access(place: Place) -> Sequence[Row]:
    server, tokens = place.settings.server, place.settings.access.tokens
    ways = [name for name, there in (("server.api_key", server.api_key), ("tokens", tokens)) if there]
    if ways:
        return [Row("access", "ok", f"needs a credential: {', '.join(ways)}, or a key of `agentflow keys`")]
    if server.on_loopback:
        return [Row("access", "ok", "open to this machine until `agentflow keys create` makes the first key")]
    way = (
        "`agentflow keys create NAME`, server.api_key or access.tokens; without any the server does not start"
    )
    return [Row("access", "warning", f"{server.host} is reached from other machines and needs a key", way)]


async def _database(place: Place) -> Sequence[Row]:
    postgres = place.settings.postgres
    if postgres.url is not None:
        return list(_judged(await condition(checked(postgres.url.get_secret_value()))))
    if not (postgres.data / "PG_VERSION").is_file():
        return [Row("database", "ok", f"our own, made at the first start in {postgres.data}")]
    try:
        return list(_judged(await condition(EmbeddedPostgres(choices.embedded(place)).beside())))
    except DatabaseDown:
        async with AsyncExitStack() as stack:
            return list(_judged(await condition(await choices.database(place, stack, silent))))


def _judged(found: Condition) -> Iterator[Row]:
    used, most = found.connections
    yield Row("database", "ok", f"Postgres {found.version}, {found.size}, {used} of {most} connections")
    offered = found.vector or found.vector_available
    if offered is None or tuple(int(part) for part in offered.split(".")[:2]) < (0, 8):
        yield Row("pgvector", "mistake", offered or "not installed", "install pgvector 0.8 or newer")
    else:
        yield Row("pgvector", "ok", offered)
    if found.at == found.wanted:
        yield Row("schema", "ok", f"revision {found.at}")
    elif found.at is not None and found.at > found.wanted:
        told = f"revision {found.at}, which is newer than {found.wanted} of this agentflow"
        yield Row("schema", "mistake", told, "update agentflow, or name another database")
    else:
        yield Row(
            "schema",
            "warning",
            f"revision {found.at or 'none'} of {found.wanted}",
            "`agentflow migrate`, or the start does",
        )
    if found.at is not None and found.roles_lacking:
        way = (
            "`agentflow migrate` as a role that may create roles; without privileges it tells the statements"
        )
        yield Row("roles", "mistake", f"missing or too mighty: {', '.join(found.roles_lacking)}", way)
    if found.unguarded:
        yield Row(
            "row security", "mistake", f"not forced on {', '.join(found.unguarded)}", "`agentflow migrate`"
        )
    elif found.at is not None:
        yield Row("row security", "ok", "forced on every table")
    if found.given_up:
        told = "; ".join(f"{number} x {name}, {reason}" for name, reason, number in found.given_up)
        yield Row(
            "jobs", "warning", f"given up: {told}", "GET /turns/ID tells which; they are kept for 30 days"
        )


async def _engine(place: Place) -> Sequence[Row]:
    model = place.settings.model
    if model.engine == "local" and (
        missing := [one for one in ("torch", "transformers", "peft") if not _installed(one)]
    ):
        return [
            Row("engine", "mistake", f"local lacks {', '.join(missing)}", "pip install 'agentflow[local]'")
        ]
    async with AsyncExitStack() as stack:
        driver = await engine(place, stack, silent)
        stack.push_async_callback(driver.close)
        health = await driver.health()
        if not health.ok:
            return [
                Row(
                    "engine",
                    "mistake",
                    health.detail,
                    "start it (`agentflow engine start`), or mend model.url",
                )
            ]
        rows = [Row("engine", "ok", health.detail)]
        return [*rows, *await _flags(place)] if model.engine == "vllm" else rows


async def _flags(place: Place) -> Sequence[Row]:
    """VLLM's own figures beside the file's."""
    model = place.settings.model
    key = model.api_key.get_secret_value() if model.api_key else None
    wire = Wire(model.url, key, Timeouts(), lambda: None)
    try:
        started = await Server(wire).started()
    finally:
        await wire.close()
    if started is None:
        way = "start it by `agentflow engine start`, whose flags are those of the file"
        return [Row("engine flags", "warning", "the server does not tell how it was started", way)]
    return [_compared(started, model.slots, model.max_rank)]


def _compared(started: Started, slots: int, max_rank: int) -> Row:
    told = f"--max-loras {started.max_loras}, --max-lora-rank {started.max_rank}"
    if started.usable < slots:
        return Row(
            "engine flags", "mistake", told, f"set model.slots to {started.usable}, or start it with more"
        )
    if started.max_rank < max_rank:
        return Row(
            "engine flags",
            "mistake",
            told,
            f"set model.max_rank to {started.max_rank}, or start it with more",
        )
    if started.max_loras > slots + 1:
        return Row(
            "engine flags", "warning", told, f"the file uses {slots} of them: the others only take memory"
        )
    return Row("engine flags", "ok", told)


async def _embedder(place: Place) -> Sequence[Row]:
    made = choices.embedder(place, silent)
    try:
        began = time.perf_counter()
        await choices.opened(made)
        opened = time.perf_counter()
        await choices.opened(made)
        took = (time.perf_counter() - opened) * 1000
        return [
            Row(
                "embedder",
                "ok",
                f"{made.id}, {made.dim} numbers, opened in {opened - began:.1f} s, {took:.0f} ms",
            )
        ]
    finally:
        await made.close()


async def _adapters(place: Place) -> Sequence[Row]:
    found = await choices.adapters(place, silent)
    broken = {role: one for role, one in found.items() if isinstance(one, AdapterError)}
    good = sum(isinstance(one, Adapter) for one in found.values())
    rows = [
        Row(
            "adapters",
            "ok",
            f"{good} usable, {len(found) - good - len(broken)} roles speak with the base alone",
        )
    ]
    way = "`agentflow adapters check` tells everything about its files"
    return rows + [Row(f"adapter of {role}", "mistake", error.message, way) for role, error in broken.items()]


async def _plan(place: Place) -> Sequence[Row]:
    found = await asyncio.to_thread(forecast, place, Machine())
    rows = [Row("plan", "mistake", one, "`agentflow plan` shows the arithmetic") for one in found.mistakes]
    rows += [Row("plan", "warning", one, "`agentflow plan` shows the arithmetic") for one in found.warnings]
    return rows or [Row("plan", "ok", "everything fits")]


def _size(octets: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if octets < 1000:
            return f"{octets:.0f} {unit}"
        octets /= 1000
    return f"{octets:.1f} TB"
