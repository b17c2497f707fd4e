"""`python -m agentflow.documents NAME`: a file on stdin, its chunks as JSON on stdout."""

import json
import resource
import sys
from dataclasses import asdict
from typing import Any

from agentflow.documents.chunks import chunks
from agentflow.documents.passages import passages
from agentflow.errors import AgentflowError

MEMORY = 2 * 1024**3


def main() -> None:
    """Whatever a parser makes of a hostile file, it ends here, with a reason."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    name = sys.argv[1]
    answer: dict[str, Any]
    try:
        answer = {"chunks": [asdict(one) for one in chunks(passages(name, sys.stdin.buffer.read()))]}
    except AgentflowError as error:
        answer = {"refused": type(error).__name__, "message": error.message}
    except Exception as error:  # noqa: BLE001 - parsers raise what they like
        answer = {
            "refused": "BadInput",
            "message": f"{name} cannot be read: {str(error) or type(error).__name__}.",
        }
    json.dump(answer, sys.stdout)


main()
