"""The machine: versions, memory, disks, GPUs, and the address to listen on."""

import asyncio
import errno
import platform
import shutil
import socket
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import psutil

from agentflow import __version__
from agentflow.wiring.checkup.row import Row
from agentflow.wiring.place import Place

ROOM, NO_ROOM = 1 << 30, 64 << 20
"""Free bytes below which a disk is told to be nearly full, and full: not even an empty database has its place there."""
PARTS = ("langgraph", "langgraph-checkpoint-postgres", "fastapi", "psycopg", "onnxruntime", "torch")


async def versions(_place: Place) -> Sequence[Row]:
    parts = [f"{name} {found}" for name in PARTS if (found := installed(name))]
    return [
        Row(
            "versions",
            "ok",
            f"agentflow {__version__}, Python {platform.python_version()}, {', '.join(parts)}",
        )
    ]


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


async def machine(place: Place) -> Sequence[Row]:
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
            "warning" if free > NO_ROOM else "mistake",
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


async def address(place: Place) -> Sequence[Row]:
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


async def access(place: Place) -> Sequence[Row]:
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


def _size(octets: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if octets < 1000:
            return f"{octets:.0f} {unit}"
        octets /= 1000
    return f"{octets:.1f} TB"
