"""The port to listen on."""

import socket

from agentflow.errors import StartError
from agentflow.settings.schema import Server


def listening(server: Server) -> socket.socket:
    """A socket on the configured address, taken before anything is started. Raises StartError."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    # The protocol must be named: asyncio sets TCP_NODELAY only then, and without it answers wait 40 ms.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((server.host, server.port))
    except OSError as error:
        taken.close()
        raise StartError(
            f"{server.host}:{server.port} cannot be listened on ({error.strerror}). Another program may have it; "
            "choose another with --port or server.port.",
            field="server.port",
            value=server.port,
        ) from error
    return taken
