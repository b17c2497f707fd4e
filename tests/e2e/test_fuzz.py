"""Whatever is sent to the doors that our schema describes, nothing of it breaks the server or keeps it."""

import subprocess
import sys
from pathlib import Path

DOORS = r"^/(v1/.*|invoke|turns/\{run_id\}|route|store/namespaces)$"
SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
WISHES = [
    "--checks=not_a_server_error",
    "--max-examples=10",
    "--phases=fuzzing",
    "--request-timeout=20",
    "--no-color",
]


def test_no_request_breaks_a_door(standing, tmp_path) -> None:
    with standing.start() as client:
        described = f"{standing.address}/openapi.json"
        command = [SCHEMATHESIS, "run", described, f"--include-path-regex={DOORS}", *WISHES]
        done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-6000:]
        assert " passed" in done.stdout
        assert client.get("/ready").json()["ready"] is True
