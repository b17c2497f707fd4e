"""Bytes as they come: in time, no more than promised, and on from where the last try stopped."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

from agentflow.egress import shown
from agentflow.errors import FetchFailed
from agentflow.protocols import RemoteFile


async def heard(blocks: AsyncGenerator[bytes], silence: float, address: str) -> AsyncGenerator[bytes, None]:
    """The blocks, each within `silence` seconds."""
    async with aclosing(blocks):
        while True:
            try:
                async with asyncio.timeout(silence):
                    block = await anext(blocks)
                yield block
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise silent(address, silence) from None


def written(out: BinaryIO, start: int, block: bytes, promised: int, address: str) -> int:
    """The new position; an empty block means that the source begins anew."""
    if not block:
        out.seek(0)
        out.truncate()
        return 0
    if start + len(block) > promised:
        raise FetchFailed(
            f"{shown(address)} sends more than the {promised} bytes it may or said it would.",
            field="lora_path",
            value=shown(address),
        )
    out.write(block)
    return start + len(block)


def resumable(part: Path, file: RemoteFile) -> int:
    """Bytes already here of exactly this content; 0 where the source cannot tell contents apart."""
    if not file.stamp or not part.exists():
        return 0
    have = part.stat().st_size
    return have if file.size is None or have <= file.size else 0


def silent(address: str, silence: float) -> FetchFailed:
    """A source that has nothing more to say."""
    return FetchFailed(
        f"{shown(address)} sent nothing for {silence:g} s.",
        field="lora_path",
        value=shown(address),
        retry_after=5,
    )
