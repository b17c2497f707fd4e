"""A file is read in a process of its own, bounded in time and memory: a hostile one harms nothing else."""

import asyncio
import json
import sys
from typing import Any

from agentflow import errors
from agentflow.documents.chunks import Chunk
from agentflow.errors import BadInput

SECONDS = 120.0
_AT_ONCE = 2


class Reader:
    """Reads a few files at once; more wait."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def read(self, name: str, data: bytes) -> list[Chunk]:
        """The chunks of a file. Raises BadInput for one that cannot be read, StartError without the extra."""
        async with self._turns:
            answer = await self._answer(name, data)
        if "refused" in answer:
            raise getattr(errors, answer["refused"])(answer["message"], field="file", value=name)
        found = [Chunk(**one) for one in answer["chunks"]]
        if not found:
            raise BadInput(f"{name} holds no text that can be read.", field="file", value=name)
        return found

    async def _answer(self, name: str, data: bytes) -> Any:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agentflow.documents", name,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._seconds):
                told, _ = await process.communicate(data)
            return json.loads(told)
        except TimeoutError as error:
            message = f"{name} was not read within {self._seconds:g} s; split it."
            raise BadInput(message, field="file", value=name) from error
        except ValueError as error:
            message = f"{name} cannot be read: it needs more memory than reading may take, or it is broken."
            raise BadInput(message, field="file", value=name) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
