"""The port to listen on, and how many may come."""

import errno
import resource
import socket

from agentflow.errors import StartError
from agentflow.settings.schema import Server

FILES = 65_536
"""Open files of a process: two for each stream that is followed."""


def way_out(error: Exception) -> str:
    """What to do where an address cannot be listened on."""
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return "stop the program that has it, or choose another with --port or server.port"
    if code == errno.EACCES:
        return "ports below 1024 take privileges; choose another with --port or server.port"
    if isinstance(error, OverflowError):
        return "choose a port between 0 and 65535"
    return "server.host must be an address of this machine: 127.0.0.1, or 0.0.0.0 for all of them"


def listening(server: Server) -> socket.socket:
    """A socket on the configured address, taken before anything is started. Raises StartError."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    # The protocol must be named: asyncio sets TCP_NODELAY only then, and without it answers wait 40 ms.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((server.host, server.port))
    except (OSError, OverflowError, UnicodeError) as error:
        taken.close()
        reason = getattr(error, "strerror", None) or error
        raise StartError(
            f"{server.host}:{server.port} cannot be listened on ({reason}); {way_out(error)}.",
            field="server.port",
            value=server.port,
        ) from error
    return taken


def widened() -> None:
    """Let this process open as many files as the machine allows it, up to FILES.

    Shells and service managers begin with 1,024, which a few hundred streams use up.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
