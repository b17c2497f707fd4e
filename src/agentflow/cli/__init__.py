"""The command line. Every error is one readable paragraph; a traceback is a defect."""

import asyncio
import signal
import sys


def main() -> None:
    """Entry of the `agentflow` command: exit code 0, or 1 with a reason on stderr."""
    try:
        _run()
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> None:
    """Imports take a second, in which Ctrl-C may come too."""
    from agentflow.cli.commands import app
    from agentflow.cli.terminal import complain
    from agentflow.errors import AgentflowError

    try:
        app()
    except AgentflowError as error:
        complain(error.message)
        sys.exit(1)
