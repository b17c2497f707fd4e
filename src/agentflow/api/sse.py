"""Server-sent events: frames, and a sign of life while nothing happens."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from fastapi.responses import StreamingResponse

STREAM = "text/event-stream"
TOO: dict[int | str, dict[str, Any]] = {200: {"content": {STREAM: {"schema": {"type": "object"}}}}}
"""For the OpenAPI document: the answer may be a stream, too."""
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
QUIET = 10.0
"""Seconds of silence after which a comment is sent: an adapter may be on its way."""
ALIVE = ": waiting\n\n"


class Events(StreamingResponse):
    """Server-sent events."""

    media_type = STREAM


async def alive(frames: AsyncGenerator[str], *, quiet: float = QUIET) -> AsyncGenerator[str]:
    """The frames, with comments in between where they keep a reader waiting; closing it closes them."""
    coming = asyncio.ensure_future(anext(frames, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=quiet)
            if not done:
                yield ALIVE
                continue
            frame = coming.result()
            if frame is None:
                return
            coming = asyncio.ensure_future(anext(frames, None))
            yield frame
    finally:
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await coming
        await frames.aclose()
