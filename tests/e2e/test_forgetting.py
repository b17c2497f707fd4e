"""A user who came in by every door is forgotten: nothing of theirs is found anywhere, in no table and in no file."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

MARK = "quokkazebra"
MARTA = "marta-from-utrecht"
CONFIG = """
memory: {min_score: 0.0, embed_within: 10s}
egress: {allow: [127.0.0.1]}
collections:
  conversations: {backend: faiss, location: SSD}
  documents: {backend: qdrant, location: SSD}
router: {feedback: immediate, on_unknown: base, on_ambiguous: first}
"""
TABLES = """
select quote_ident(table_schema) || '.' || quote_ident(table_name) from information_schema.tables
where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE' order by 1
"""
HOLDS = "select count(*) from {} t where t::text ilike %s or t::text ilike %s"
# Names of users stay in the planner's samples of that column until Postgres analyzes the table again.
SAMPLES = """
select attname from pg_stats
where attname <> 'user_ref' and (most_common_vals::text ilike %s or histogram_bounds::text ilike %s)
"""


@dataclass(frozen=True)
class Stay:
    """A house, its cache, and a client that speaks for Marta."""

    house: Any
    cache: Path
    client: httpx.Client

    def connected(self) -> psycopg.Connection:
        folder = self.house.folder / ".agentflow"
        sockets = next(folder.glob("postgres/postmaster.pid")).read_text().splitlines()[4]
        return psycopg.connect(f"host={sockets} user=postgres dbname=agentflow", autocommit=True)

    def nothing_left(self, query: str) -> bool:
        with self.connected() as connection:
            return connection.execute(query.encode()).fetchone() == (0,)

    def holding(self, text: str) -> list[str]:
        """Every table, sample of the planner's and file that holds the text, as it stands or as bytes."""
        plain, hexed = f"%{text}%", f"%{text.encode().hex()}%"
        with self.connected() as connection:
            connection.execute("analyze")
            tables = [name for (name,) in connection.execute(TABLES).fetchall()]
            holds = [
                one
                for one in tables
                if connection.execute(HOLDS.format(one).encode(), (plain, hexed)).fetchone()[0]
            ]
            samples = connection.execute(SAMPLES, (plain, plain)).fetchall()
        return holds + [f"sample of {name}" for (name,) in samples] + self.in_files(text)

    def in_files(self, text: str) -> list[str]:
        folders = [*(self.house.folder / ".agentflow").iterdir(), self.cache]
        found = (one for folder in folders if folder.name != "postgres" for one in folder.rglob("*"))
        return [str(one) for one in found if one.is_file() and text.encode() in one.read_bytes()]


@pytest.fixture
def stay(founded, tmp_path, monkeypatch) -> Iterator[Stay]:
    cache = tmp_path / "cache"
    monkeypatch.setenv("AGENTFLOW_CACHE", str(cache))
    made = founded("")
    file = made.folder / "agentflow.yaml"
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("memory:", "router:"))]
    file.write_text("".join(kept) + CONFIG)
    with made.start() as client:
        client.headers["x-api-key"] = key(made)
        yield Stay(made, cache, client)


def key(house) -> str:
    scopes = [word for scope in ("chat", "threads", "memory", "admin") for word in ("--scope", scope)]
    command = [sys.executable, "-m", "agentflow", "keys", "create", f"laptop of {MARK}", "--user", MARTA]
    made = subprocess.run([*command, *scopes], cwd=house.folder, capture_output=True, text=True, check=True)
    return made.stdout.strip()


def everywhere(client: httpx.Client) -> None:
    """Marta says the mark at every door."""
    said = {"messages": [{"role": "user", "content": f"I live in {MARK}"}]}
    webhook = f"http://127.0.0.1:9/{MARK}"
    turn = client.post("/invoke", json={"input": f"My home is {MARK}", "role": "coder"},
                       headers={"Idempotency-Key": f"key-{MARK}"}).raise_for_status().json()  # fmt: skip
    client.post("/invoke", json={"input": f"Call {MARK}", "webhook": webhook}).raise_for_status()
    client.post(f"/turns/{turn['run_id']}/feedback", json={"role": "philosopher"}).raise_for_status()
    thread = (
        client.post("/threads", json={"metadata": {"title": MARK}}).raise_for_status().json()["thread_id"]
    )
    run = {"assistant_id": "agent", "input": said, "metadata": {"note": MARK}, "webhook": webhook}
    client.post(f"/threads/{thread}/runs/wait", json=run).raise_for_status()
    client.post(f"/threads/{thread}/runs", json={**run, "after_seconds": 3600}).raise_for_status()
    client.post("/runs/crons", json={**run, "schedule": "0 0 1 1 *"}).raise_for_status()
    client.put(
        "/store/items", json={"namespace": [MARK], "key": MARK, "value": {"note": MARK}}
    ).raise_for_status()
    chat = {"model": "coder", "messages": said["messages"], "metadata": {"note": MARK}}
    client.post("/v1/chat/completions", json=chat).raise_for_status()
    client.post("/v1/responses", json={"model": "coder", "input": f"My street is {MARK}"}).raise_for_status()
    hidden = client.get("/memory", params={"text": "My home"}).json()["memories"]
    for number, change in zip(
        [one["id"] for one in hidden], ({"hidden": True}, {"content": "Moved"}), strict=False
    ):
        client.patch(f"/memory/{number}", json=change).raise_for_status()
    page = {"file": (f"{MARK}.md", f"# {MARK}\n\nThe garden of {MARK}.".encode())}
    client.post("/memory/documents", files=page, data={"thread_id": thread}).raise_for_status()
    client.post("/memory/documents", files=page).raise_for_status()
    line = {"uid": MARK, "speaker": MARK, "content": f"imported {MARK}", "only_role": "coder"}
    client.post("/memory/import", content=json.dumps(line).encode()).raise_for_status()


def test_nothing_of_a_forgotten_user_is_found_in_any_table_or_file(stay, until) -> None:
    everywhere(stay.client)
    until(lambda: stay.nothing_left("select count(*) from agentflow.outbox where kind = 'embed'"))
    until(lambda: stay.nothing_left("select count(*) from agentflow.word where embedding is null"))
    assert len(stay.holding(MARK)) >= 10
    assert "agentflow.scope" in stay.holding(MARTA)
    receipt = stay.client.post("/memory/forget", json={"everything": "user"}).raise_for_status().json()
    assert (receipt["counts"]["keys"], receipt["counts"]["feedback"]) == (1, 1)
    until(lambda: stay.client.get("/memory").status_code == 401)
    # A delivery that was under way finds out at its next try that its run is gone.
    until(lambda: stay.nothing_left("select count(*) from jobs.procrastinate_jobs where args ? 'reason'"))
    assert stay.holding(MARK) == []
    assert stay.holding(MARTA) == []
