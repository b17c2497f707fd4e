"""Whatever is sent to the addresses that our schema describes, nothing of it breaks the server, keeps it, is answered
otherwise than the schema says, or reaches another tenant. `make fuzz` sends more.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
TRUE = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,unsupported_method,allow_header_conformance,negative_data_rejection"
)
"""Left out: whether all that fits the schema is taken. Which roles, threads and graphs there are, no schema says."""
STAYS_OPEN = "/threads/{thread_id}/stream/events"
"""Streams until its reader goes, for a thread that is yet to begin too: read here to its first line."""
LINES = "/memory/import"
"""Takes lines of JSON, which the tool cannot write: written here."""
WISHES = [
    f"--checks={TRUE}",
    "--phases=fuzzing",
    "--request-timeout=60",
    "--workers=2",
    "--no-color",
    f"--exclude-path={STAYS_OPEN}",
    f"--exclude-path={LINES}",
]
SCOPES = ("chat", "threads", "memory", "users", "admin")
WORDS = st.sampled_from(
    ["values", "messages", "lifecycle", "input", "-", "0", "1-1", "memory", "turn", "user", "a", ""]
)
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | WORDS, inner, max_size=3)
    ),
    max_leaves=8,
)
LISTENED = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("channels", "namespaces", "depth", "since"), JUNK | st.lists(WORDS))
)
LISTENERS = st.sampled_from(["own", "00000000-0000-4000-8000-000000000000", "no-id", "%00", "-1"])
FIELDS = (
    "kind",
    "id",
    "thread_id",
    "content",
    "speaker",
    "at",
    "collection",
    "role",
    "vector",
    "text",
    "format",
)


QUIET: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}


@dataclass(frozen=True)
class Town:
    """A server that needs keys; one of a tenant that asks for everything, one of a tenant that does nothing."""

    address: str
    busy: str
    idle: str
    documented: dict[str, Any]

    def client(self, key: str) -> httpx.Client:
        return httpx.Client(base_url=self.address, headers={"X-Api-Key": key}, timeout=120, trust_env=False)

    def allowed(self, path: str) -> set[int]:
        return {int(code) for code in self.documented[path]["post"]["responses"]}


@pytest.fixture(scope="module")
def town(standing) -> Iterator[Town]:
    with standing.start() as client:
        keys = [_key(standing.folder, tenant) for tenant in (1, 2)]
        documented = client.get("/openapi.json", headers={"X-Api-Key": keys[0]}).json()["paths"]
        yield Town(standing.address, keys[0], keys[1], documented)


def _key(folder: Path, tenant: int) -> str:
    scopes = [word for scope in SCOPES for word in ("--scope", scope)]
    command = [sys.executable, "-m", "agentflow", "keys", "create", "fuzz", "--tenant", str(tenant), *scopes]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, check=True).stdout.strip()


def test_no_request_breaks_a_door_and_all_are_answered_as_described(town, tmp_path, request) -> None:
    much = [f"{name}={request.config.getoption(name)}" for name in ("--max-examples", "--seed")]
    command = [SCHEMATHESIS, "run", f"{town.address}/openapi.json", "--header", f"X-Api-Key: {town.busy}"]
    done = subprocess.run(
        [*command, *WISHES, *much], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout
    with town.client(town.busy) as client:
        assert client.get("/ready").json()["ready"] is True


def test_whatever_a_thread_s_listener_wants_it_is_heard_or_refused(town, request) -> None:
    with town.client(town.busy) as client:
        own = client.post("/threads", json={}).json()["thread_id"]

        @settings(max_examples=int(request.config.getoption("--max-examples")) * 4, **QUIET)
        @given(thread=LISTENERS, body=LISTENED | JUNK)
        def listen(thread: str, body: Any) -> None:
            path = STAYS_OPEN.replace("{thread_id}", own if thread == "own" else thread)
            with client.stream("POST", path, json=body) as answer:
                assert answer.status_code in town.allowed(STAYS_OPEN)
                assert answer.status_code < 500

        listen()


def test_whatever_lines_are_imported_they_are_taken_or_refused(town, request) -> None:
    line = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JUNK)).map(json.dumps).map(str.encode)
    lines = st.lists(line | JUNK.map(json.dumps).map(str.encode) | st.binary(max_size=20), max_size=4)
    with town.client(town.busy) as client:

        @settings(max_examples=int(request.config.getoption("--max-examples")) * 4, **QUIET)
        @given(lines=lines)
        def send(lines: list[bytes]) -> None:
            answer = client.post(LINES, content=b"\n".join(lines))
            assert answer.status_code in town.allowed(LINES)
            assert answer.status_code < 500

        send()


def test_nothing_of_all_that_is_another_tenant_s(town) -> None:
    with town.client(town.busy) as busy, town.client(town.idle) as idle:
        busy.post("/threads", json={})
        assert busy.post("/threads/count", json={}).json() > 0
        assert idle.post("/threads/count", json={}).json() == 0
        assert idle.get("/memory").json()["memories"] == []
        assert idle.post("/store/namespaces", json={}).json() == {"namespaces": []}
        assert idle.post("/runs/crons/count", json={}).json() == 0
        assert idle.get("/feedback").json() == {"feedback": []}
