"""A body over the limit is refused in our own words; who does not read, or does not send, is left."""

import asyncio
import json
from dataclasses import dataclass

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentflow.api.problems import in_shape

log = structlog.get_logger(__name__)
SLOW = 30.0
"""Seconds in which a reader must have taken what is sent, and a sender sends on."""
WHOLE = 600.0
"""Seconds in which a body must have come whole, however steadily it drips."""


class ReadableRefusal:
    """Rewrites what the framework refuses in plain text into the shape that the door's clients know."""

    def __init__(self, app: ASGIApp, *, body_limit: int) -> None:
        self.app = app
        too_large = (
            f"The body is over its limit: server.body_limit = {body_limit} bytes, or memory.upload_limit where files "
            "are sent. Send less, or raise the limit."
        )
        other_name = (
            "The request names another host; access.hosts lists the names by which this server is called."
        )
        self.told = {
            413: {"error": "TooLarge", "message": too_large},
            400: {"error": "HTTP", "message": other_name},
            408: {"error": "HTTP", "message": _too_slow()},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; only plain refusals are changed."""
        refusal = b""

        async def tell(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "http.response.start" and _is_plain(message):
                told = self.told.get(message["status"])
                refusal = json.dumps(in_shape(scope["path"], told)).encode() if told else b""
            if not refusal:
                await send(message)
            elif message["type"] == "http.response.start":
                length = str(len(refusal)).encode()
                headers = [(b"content-type", b"application/json"), (b"content-length", length)]
                await send({**message, "headers": headers})
            else:
                await send({**message, "body": b"" if message.get("more_body") else refusal})

        await self.app(scope, receive, tell)


def _too_slow() -> str:
    return f"The body stopped coming for {SLOW:g} s, or was not whole after {WHOLE:g} s. Send it again."


def _is_plain(start: Message) -> bool:
    kind: bytes = dict(start["headers"]).get(b"content-type", b"")
    return not kind.startswith(b"application/json")


class Impatient:
    """Leaves a reader who takes nothing for `seconds`, and a sender who sends nothing, or is not done after `whole`.

    Both hold things up here.
    """

    def __init__(self, app: ASGIApp, *, seconds: float = SLOW, whole: float = WHOLE) -> None:
        self.app = app
        self.seconds = seconds
        self.whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, each part within its time; the server then closes what is incomplete."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        parts = _Parts(receive, send, self.seconds, asyncio.get_running_loop().time() + self.whole)
        try:
            await self.app(scope, parts.hear, parts.tell)
        except ClientDisconnect:
            if not parts.late and not parts.silent:
                raise
            log.warning("a reader or sender took too long", path=scope["path"], seconds=self.seconds)
        if parts.silent:
            await PlainTextResponse("", 408, {"connection": "close"})(scope, receive, send)


@dataclass
class _Parts:
    """The parts of one exchange; by `until`, in the loop's time, the body is whole.

    `late`: the reader did not take one in time, `silent`: the sender sent none.
    """

    receive: Receive
    send: Send
    seconds: float
    until: float
    late: bool = False
    silent: bool = False
    coming: bool = True

    async def tell(self, message: Message) -> None:
        """To the reader. Raises ClientDisconnect: who takes nothing counts as gone too."""
        if self.silent:
            return  # the reason is told at the end, whatever was made of half a body
        try:
            async with asyncio.timeout(self.seconds):
                await self.send(message)
        except TimeoutError:
            self.late = True
            raise ClientDisconnect from None

    async def hear(self) -> Message:
        """From the sender; who is silent in the middle of a body counts as gone."""
        if not self.coming:
            return await self.receive()
        try:
            async with asyncio.timeout_at(min(asyncio.get_running_loop().time() + self.seconds, self.until)):
                message = await self.receive()
        except TimeoutError:
            self.silent = True
            return {"type": "http.disconnect"}
        self.coming = message.get("more_body", False)
        return message
