"""One connection: how much a request's headers may hold, and how long they may take to come.

uvicorn bounds neither: without this, whoever reaches the port fills the memory with one endless header, key or not.
"""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADERS = 64 * 1024
"""Bytes of a request's first line and headers that may wait for their end."""
WITHIN = 30.0
"""Seconds from the connection, or from a further request's first byte, to the end of the headers."""


class Bounded(HttpToolsProtocol):
    """Refuses headers that are too large or too slow."""

    held: int = 0
    late: TimerHandle | None = None
    within: float = WITHIN

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """The first request is awaited from now on."""
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Whatever came beyond the end of the headers is the body, which has a limit of its own."""
        super().data_received(data)
        if self.late is None:
            return
        self.held += len(data)
        if self.held > HEADERS:
            self._give_up(f"The headers are over {HEADERS} bytes.")

    def on_message_begin(self) -> None:
        """A further request of the same connection."""
        super().on_message_begin()
        if self.late is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        """From here on the application decides."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self.held = 0
        self.late = self.loop.call_later(self.within, self._give_up, "The headers took too long.")

    def _stop_waiting(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None

    def _give_up(self, reason: str) -> Any:
        self._stop_waiting()
        if not self.transport.is_closing():
            self.send_400_response(reason)
