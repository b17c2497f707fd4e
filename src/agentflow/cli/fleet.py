"""Several processes on one address and one database: `agentflow serve --workers N`.

The parent owns the socket and, where the database is ours, Postgres; it starts a child anew that has died. The
children are equals: each takes requests and works on runs, and any of them can join, stream or cancel any run. A
child ends with its parent, however that one ended: its standard input closes.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

import structlog

from agentflow.cli import house
from agentflow.cli.port import listening
from agentflow.records.migrate import migrate
from agentflow.settings import read_environment
from agentflow.wiring import Place, Progress
from agentflow.wiring.choices import database

log = structlog.get_logger(__name__)
PAUSE = 1.0
"""Seconds before a child that died is started again."""
PATIENCE = 10.0
"""Seconds that a child has to end in order, beyond what it waits for requests and then for turns."""


async def serve(place: Place, arguments: Sequence[str], count: int, progress: Progress) -> None:
    """Run `count` children with these arguments of `agentflow serve` until a signal comes."""
    stop = house.starting()
    async with AsyncExitStack() as stack:
        taken = listening(place.settings.server)
        stack.callback(taken.close)
        taken.listen(1024)
        dsn = await database(place, stack, progress)
        await asyncio.to_thread(migrate, dsn)
        patience = 2 * place.settings.server.drain + PATIENCE
        children = [asyncio.create_task(_kept(taken, dsn, arguments, patience)) for _ in range(count)]
        try:
            await house.until_signal(stop)
        finally:
            for child in children:
                child.cancel()
            await asyncio.gather(*children, return_exceptions=True)


async def _kept(taken: socket.socket, dsn: str, arguments: Sequence[str], patience: float) -> None:
    """One child, started again whenever it has died."""
    command = [sys.executable, "-m", "agentflow", "serve", *arguments, "--socket", str(taken.fileno())]
    environment = {**read_environment().variables, "DATABASE_URL": dsn}
    while True:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            env=environment,
            pass_fds=(taken.fileno(),),
            start_new_session=True,
        )
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            await _ended(child, patience)
            raise
        log.warning("a worker process has died and is started again", code=code)
        await asyncio.sleep(PAUSE)


async def _ended(child: asyncio.subprocess.Process, patience: float) -> None:
    if child.returncode is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(patience):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
