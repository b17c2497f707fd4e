"""Whatever is sent to the addresses that our schema describes, nothing of it breaks the server, keeps it, or is
answered otherwise than the schema says. `make fuzz` sends more.
"""

import subprocess
import sys
from pathlib import Path

SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
TRUE = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,unsupported_method,allow_header_conformance,negative_data_rejection"
)
"""Left out: whether all that fits the schema is taken. Which roles, threads and graphs there are, no schema says."""
STAYS_OPEN = "/threads/{thread_id}/stream/events"
"""Streams until its reader goes, for a thread that is yet to begin too."""
LINES = "/memory/import"
"""Takes lines of JSON, which the tool cannot write; test_memory.py sends it bad ones."""
WISHES = [
    f"--checks={TRUE}",
    "--phases=fuzzing",
    "--request-timeout=20",
    "--workers=2",
    "--no-color",
    f"--exclude-path={STAYS_OPEN}",
    f"--exclude-path={LINES}",
]


def test_no_request_breaks_a_door_and_all_are_answered_as_described(house, tmp_path, request) -> None:
    with house.start() as client:
        much = [f"{name}={request.config.getoption(name)}" for name in ("--max-examples", "--seed")]
        command = [SCHEMATHESIS, "run", f"{house.address}/openapi.json", *WISHES, *much]
        done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout[-6000:]
        assert " passed" in done.stdout
        assert client.get("/ready").json()["ready"] is True
