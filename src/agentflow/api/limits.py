"""A body over the limit is refused in our own words; a reader that does not read is left."""

import asyncio
import json

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)


class ReadableRefusal:
    """Rewrites the framework's plain 413 into the one shape of errors."""

    def __init__(self, app: ASGIApp, *, body_limit: int) -> None:
        self.app = app
        message = (
            f"The body is over its limit: server.body_limit = {body_limit} bytes, or memory.upload_limit where files "
            "are sent. Send less, or raise the limit."
        )
        self.body = json.dumps({"error": "TooLarge", "message": message}).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; only a plain 413 is changed."""
        refused = False

        async def tell(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == 413:
                refused = dict(message["headers"]).get(b"content-type") != b"application/json"
            if not refused:
                await send(message)
            elif message["type"] == "http.response.start":
                length = str(len(self.body)).encode()
                headers = [(b"content-type", b"application/json"), (b"content-length", length)]
                await send({**message, "headers": headers})
            else:
                await send({**message, "body": b"" if message.get("more_body") else self.body})

        await self.app(scope, receive, tell)


class Impatient:
    """Leaves a reader who takes nothing for `seconds`: what it holds up would pile up here."""

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, each part within its time; the server then closes what is incomplete."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        late = False

        async def tell(message: Message) -> None:
            nonlocal late
            try:
                await asyncio.wait_for(send(message), self.seconds)
            except TimeoutError:
                late = True
                raise

        try:
            await self.app(scope, receive, tell)
        except TimeoutError:
            if not late:
                raise
            log.warning("a reader took too long", path=scope["path"], seconds=self.seconds)
