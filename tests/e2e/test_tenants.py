"""Tenants and users never meet: every address of the server is asked for somebody else's things."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

SECRET = "the orchard behind the mill"
PEOPLE = {
    "ann": (1, "ann"),
    "bob": (1, "bob"),
    "eve": (2, "ann"),
}  # name: (tenant, user); each with every scope
SCOPES = ("chat", "threads", "memory", "admin")
RUN = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "hi"}]}}
BODIES = {
    "/threads/{thread_id}/runs": RUN,
    "/threads/{thread_id}/runs/wait": RUN,
    "/threads/{thread_id}/runs/stream": RUN,
    "/threads/{thread_id}/runs/crons": {**RUN, "schedule": "0 0 1 1 *"},
    "/threads/{thread_id}/commands": {"id": 1, "method": "state.get", "params": {}},
    "/assistants/{assistant_id}/latest": {"version": 1},
    "/feedback/{number}": {"accept": True},
    "/memory/{number}": {"pinned": True},
    "/a2a/{assistant_id}": {"id": 1, "method": "message/send", "params": {"message": {"parts": []}}},
    "/route": {"input": "hi"},
    "/memory/search": {"text": SECRET},
    "/memory/forget": {"by": "text", "value": SECRET, "preview": True},
    "/threads/{thread_id}/role": {"role": None},
    "/turns/{run_id}/feedback": {"role": "coder"},
    "/threads/{thread_id}/state": {"values": {}},
}
LEFT_OUT = ("/docs", "/redoc", "/openapi.json", "/metrics", "/health", "/ready", "/ok", "/info")

STAYS_OPEN = "/threads/{thread_id}/stream/events"


@dataclass
class Town:
    """A server with people, and what Ann has left in it."""

    client: httpx.Client
    keys: dict[str, str]
    things: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)

    def ask(self, who: str, method: str, path: str, body: object = None) -> httpx.Response:
        return self.client.request(method, path, json=body, headers={"x-api-key": self.keys[who]})

    def remembered(self) -> list[tuple[int, str, bool]]:
        listed = self.ask("ann", "GET", "/memory").json()["memories"]
        return [(one["id"], one["content"], one["pinned"]) for one in listed]

    def addresses(self) -> list[tuple[str, str]]:
        listed = self.client.get("/openapi.json", headers={"x-api-key": self.keys["ann"]}).json()["paths"]
        return [
            (method.upper(), path)
            for path, methods in listed.items()
            for method in methods
            if not path.startswith(LEFT_OUT) and path != STAYS_OPEN
        ]


@pytest.fixture(scope="module")
def town(standing) -> Iterator[Town]:
    with standing.start("--studio") as client:
        keys = {}
        for name, (tenant, user) in PEOPLE.items():
            command = [
                sys.executable,
                "-m",
                "agentflow",
                "keys",
                "create",
                name,
                "--tenant",
                str(tenant),
                "--user",
                user,
            ]
            made = subprocess.run(
                [*command, *(word for scope in SCOPES for word in ("--scope", scope))],
                cwd=standing.folder,
                text=True,
                capture_output=True,
                check=True,
            )
            keys[name] = made.stdout.strip()
        made = Town(client, keys)
        answer = made.ask("ann", "POST", "/invoke", {"input": SECRET, "role": "coder"}).json()
        thread = made.ask("ann", "POST", "/threads", {"metadata": {"note": SECRET}}).json()
        memories = made.ask("ann", "GET", "/memory").json()
        made.things = {
            "run_id": answer["run_id"],
            "thread_id": answer["thread_id"],
            "protocol_thread": thread["thread_id"],
            "number": str(memories["memories"][0]["id"]),
        }
        made.ask(
            "ann", "PUT", "/store/items", {"namespace": ["notes"], "key": "k", "value": {"note": SECRET}}
        )
        made.others = _left_besides(made)
        yield made


def _left_besides(town: Town) -> dict[str, str]:
    """What else of Ann's has an id, by the beginning of its address. Who reviews feedback reads its message."""
    said = town.ask("ann", "POST", "/invoke", {"input": "some code", "role": "coder"}).json()
    at = f"/turns/{said['run_id']}/feedback"
    kept = town.ask("ann", "POST", "/runs/crons", {**RUN, "schedule": "0 0 1 1 *"})
    thread = f"/threads/{town.things['protocol_thread']}"
    town.ask("ann", "POST", f"{thread}/runs/wait", RUN)
    state = town.ask("ann", "GET", f"{thread}/history").json()[0]
    file = {"file": ("notes.txt", b"All that is said of the mill and of its orchard.")}
    told = town.client.post("/memory/documents", files=file, headers={"x-api-key": town.keys["ann"]})
    forgotten = town.ask("ann", "POST", "/memory/forget", {"text": "no such words"})
    return {
        "/assistants": town.ask("ann", "POST", "/assistants", {"graph_id": "agent"}).json()["assistant_id"],
        "/a2a": town.ask("ann", "POST", "/assistants", {"graph_id": "agent"}).json()["assistant_id"],
        "/runs/crons": kept.json()["cron_id"],
        "/feedback": str(town.ask("ann", "POST", at, {"role": "philosopher"}).json()["id"]),
        "/memory/documents": str(told.json()["id"]),
        "/memory/receipts": str(forgotten.json()["receipt"]),
        "/threads": state["checkpoint"]["checkpoint_id"],
    }


def test_ann_finds_what_she_left(town: Town) -> None:
    assert SECRET in town.ask("ann", "GET", "/memory").text
    assert SECRET in town.ask("ann", "POST", "/threads/search", {}).text
    assert SECRET in town.ask("ann", "GET", f"/memory/{town.things['number']}").text


@pytest.mark.parametrize("who", ["bob", "eve"])
def test_no_address_shows_or_changes_what_is_somebody_else_s(town: Town, who: str) -> None:
    """The addresses come from the server's own list: a new one is covered as soon as it is there."""
    before = town.remembered()
    shown = []
    for method, path in town.addresses():
        for thread in (town.things["thread_id"], town.things["protocol_thread"]):
            named = {
                **dict.fromkeys(("assistant_id", "cron_id", "receipt", "document"), thread),
                **town.things,
            }
            filled = path.format_map(_Anything(named | {"thread_id": thread}))
            answer = town.ask(who, method, filled, BODIES.get(path, {}) if method != "GET" else None)
            if SECRET in answer.text or answer.status_code >= 500:
                shown.append((method, path, answer.status_code, answer.text[:200]))
            failed = '"type":"error"' in answer.text
            if answer.is_success and not failed and any(mark in path for mark in ("{run_id}", "{thread_id}")):
                shown.append((method, path, answer.status_code, answer.text[:200]))
            if "{thread_id}" not in path:
                break
    assert shown == []
    assert town.remembered() == before
    assert SECRET in town.ask("ann", "POST", "/threads/search", {}).text


NOWHERE = "0197a000-0000-7000-8000-00000000dead"
SHARED = {"bob": ("/assistants", "/a2a", "/feedback"), "eve": ()}
"""What all users of a tenant have in common."""


@pytest.mark.parametrize("who", ["bob", "eve"])
def test_what_is_somebody_else_s_is_answered_like_what_never_was(town: Town, who: str) -> None:
    told_apart = []
    for method, path in town.addresses():
        if "{" not in path or path.startswith(("/residency", "/v1", *SHARED[who])):
            continue
        named = _ids(town, path)
        never = {name: "999999" if one.isdigit() else NOWHERE for name, one in named.items()}
        theirs, nobody_s = (_answer(town, who, method, path, ids) for ids in (named, never))
        if theirs != nobody_s:
            told_apart.append((method, path, theirs, nobody_s))
    assert told_apart == []


def _ids(town: Town, path: str) -> dict[str, str]:
    """Ann's ids, by the names that the path has for them."""
    own = next((one for start, one in town.others.items() if path.startswith(start)), NOWHERE)
    number = town.things["number"] if own == NOWHERE else own
    own_ids = dict.fromkeys(("checkpoint_id", "cron_id", "assistant_id"), own)
    return {**town.things, **own_ids, "thread_id": town.things["protocol_thread"], "number": number}


def _answer(town: Town, who: str, method: str, path: str, ids: dict[str, str]) -> tuple[int, str]:
    """Status and text, without the ids themselves."""
    body = None if method == "GET" else BODIES.get(path, {})
    answer = town.ask(who, method, path.format_map(_Anything(ids)), body)
    return answer.status_code, re.sub("|".join(ids.values()), "ID", answer.text)


@pytest.mark.parametrize("who", ["bob", "eve"])
def test_a_stream_that_stays_open_holds_the_askers_own_events_only(town: Town, who: str) -> None:
    thread = f"/threads/{town.things['protocol_thread']}"
    run = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": SECRET}]}}
    begun = town.ask("ann", "POST", f"{thread}/commands", {"id": 1, "method": "run.start", "params": run})
    assert begun.json()["type"] == "success"
    assert first_line(town, "ann", f"{thread}/stream/events").startswith("id: ")
    assert first_line(town, who, f"{thread}/stream/events") == ": heartbeat"


def first_line(town: Town, who: str, path: str) -> str:
    headers = {"x-api-key": town.keys[who]}
    with town.client.stream("POST", path, json={"channels": ["lifecycle"]}, headers=headers) as answer:
        return next(answer.iter_lines())


class _Anything(dict[str, str]):
    """Names of path parameters that we have nothing for."""

    def __missing__(self, name: str) -> str:
        return "1"


def test_a_memory_of_somebody_else_is_not_recalled(town: Town) -> None:
    for who in ("bob", "eve"):
        answer = town.ask(who, "POST", "/invoke", {"input": SECRET.replace("the", "which"), "role": "coder"})
        assert SECRET not in json.dumps(answer.json()["memories"])


@pytest.mark.parametrize(("length", "code"), [(1, 401), (3_000_000, 413)])
def test_a_page_that_is_welcome_may_read_why_it_is_refused(town: Town, length: int, code: int) -> None:
    headers = {"Origin": "https://smith.langchain.com"}
    if code != 401:
        headers["x-api-key"] = town.keys["ann"]
    refused = town.client.post("/threads", content=b" " * length, headers=headers)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (code, headers["Origin"])
