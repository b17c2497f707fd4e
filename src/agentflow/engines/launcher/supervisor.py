"""A model server as a child: started, awaited, brought back when it dies, ended with all its workers."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx

from agentflow.ending import end
from agentflow.engines.launcher.command import Command
from agentflow.errors import StartError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Patience:
    """Seconds. A server that was ready for `steady` begins anew with the shortest pause."""

    ready: float = 600
    poll: float = 0.5
    first_pause: float = 1
    longest_pause: float = 60
    steady: float = 60
    ending: float = 30


@dataclass
class Supervisor:
    """`url` answers /health once the server is ready. Its output goes where ours goes.

    `environment` is inherited, less what the command must not see. `restarts` counts.
    """

    command: Command
    url: str
    environment: Mapping[str, str]
    say: Say
    patience: Patience = Patience()
    clock: Callable[[], float] = time.monotonic
    restarts: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises StartError when the server ends before it was ever ready."""
        pause, was_ready = self.patience.first_pause, False
        while not stop.is_set():
            began = self.clock()
            process = await self._spawn()
            try:
                ready = await self._watched(process, stop)
            finally:
                await self._ended(process)
            if stop.is_set():
                return
            was_ready |= ready
            if not was_ready:
                raise StartError(
                    f"The engine ended with {process.returncode} before it was ready; its last lines are above. "
                    "`agentflow engine args` shows how it was started."
                )
            pause = self.patience.first_pause if self.clock() - began > self.patience.steady else pause
            self.restarts += 1
            self.say(f"the engine ended with {process.returncode}; it is started again in {pause:g} s")
            await _within(pause, stop.wait())
            pause = min(pause * 2, self.patience.longest_pause)

    async def _spawn(self) -> asyncio.subprocess.Process:
        kept = {name: value for name, value in self.environment.items() if name not in self.command.unset}
        try:
            return await asyncio.create_subprocess_exec(
                *self.command.args, env=kept | dict(self.command.env), start_new_session=True
            )
        except OSError as error:
            raise StartError(f"{self.command.args[0]} cannot be run: {error}.") from error

    async def _watched(self, process: asyncio.subprocess.Process, stop: asyncio.Event) -> bool:
        """Until it ends or we are stopped; whether it was ready."""
        ends = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(stop.wait())]
        answers = asyncio.ensure_future(self._answers())
        try:
            await asyncio.wait(
                [*ends, answers], return_when=asyncio.FIRST_COMPLETED, timeout=self.patience.ready
            )
            if not answers.done() and not any(end.done() for end in ends):
                self.say(f"the engine was not ready after {self.patience.ready:g} s")
                return False
            ready = answers.done() and not ends[0].done()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return ready
        finally:
            await end([*ends, answers])

    async def _answers(self) -> None:
        began = self.clock()
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            while not await _is_ready(client, f"{self.url}/health"):  # noqa: ASYNC110 - a server
                await asyncio.sleep(self.patience.poll)
        self.say(f"the engine is ready at {self.url} after {self.clock() - began:.0f} s")

    async def _ended(self, process: asyncio.subprocess.Process) -> None:
        """Workers may outlive the server: the whole group is asked, then killed."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, kind)
            except ProcessLookupError:
                break
            if await _within(self.patience.ending, _group_gone(process)):
                break
        await process.wait()


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False


async def _group_gone(process: asyncio.subprocess.Process) -> bool:
    await process.wait()
    while True:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.05)


async def _within(seconds: float, waiting: Awaitable[bool]) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await waiting
    except TimeoutError:
        return False
