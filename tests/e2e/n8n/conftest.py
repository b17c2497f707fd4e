"""A real n8n on loopback, an agentflow beside it, and between them a recorder of what n8n says."""

import itertools
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

ROOT = Path(__file__).parents[3]
INSTALLED = ROOT / ".n8n"
WORKFLOWS = ROOT / "integrations" / "n8n" / "workflows"
RECORDED = Path(__file__).parent / "recorded.jsonl"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
KEPT_HEADERS = ("authorization", "x-api-key", "content-type", "accept", "user-agent", "idempotency-key")
QUIET = {
    "DB_TYPE": "sqlite",
    "GENERIC_TIMEZONE": "UTC",
    "N8N_DIAGNOSTICS_ENABLED": "false",
    "N8N_DISABLED_MODULES": "mcp-registry,instance-ai,insights",
    "N8N_ENCRYPTION_KEY": "0" * 32,
    "N8N_HIRING_BANNER_ENABLED": "false",
    "N8N_HOST": "127.0.0.1",
    "N8N_LISTEN_ADDRESS": "127.0.0.1",
    "N8N_PERSONALIZATION_ENABLED": "false",
    "N8N_SECURE_COOKIE": "false",
    "N8N_TEMPLATES_ENABLED": "false",
    "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
    "NODE_OPTIONS": "--max-old-space-size=1536",
}
"""Nothing of n8n asks the outside world."""


OWNER = {"email": "owner@example.org", "firstName": "Test", "lastName": "Owner", "password": "Agentflow-2026"}
NOBODY = 9
"""A port where nothing listens."""


def _flow(name: str, *nodes: dict[str, Any]) -> dict[str, Any]:
    """A workflow of nodes in a row."""
    names = [node["name"] for node in nodes]
    wires = {a: {"main": [[{"node": b, "type": "main", "index": 0}]]} for a, b in itertools.pairwise(names)}
    return {
        "id": name,
        "name": name,
        "active": False,
        "nodes": list(nodes),
        "connections": wires,
        "settings": {},
    }


def _node(name: str, kind: str, version: float, **parameters: Any) -> dict[str, Any]:
    place = {"position": [0, 0], "id": name, "name": name}
    return {**place, "type": kind, "typeVersion": version, "parameters": parameters}


def _asks(credential: str, role: str = "coder") -> dict[str, Any]:
    node = _node("Ask", "n8n-nodes-agentflow.agentflow", 1, operation="askRole", role=role, message="Hello")
    return {**node, "credentials": {"agentflowApi": {"id": credential, "name": credential}}}


START = _node("Start", "n8n-nodes-base.manualTrigger", 1)
HOOK = _node("Hook", "n8n-nodes-base.webhook", 2.1, httpMethod="POST", path="hook", options={})
FAULTS = {
    "wrongkey": _flow("wrongkey", START, _asks("wrongKey")),
    "unknownrole": _flow("unknownrole", START, _asks("agentflowNode", role="nobody")),
    "down": _flow("down", START, _asks("nobody")),
    "cold": _flow("cold", START, _asks("agentflowNode", role="sleeper")),
    "called": _flow("called", {**HOOK, "webhookId": "hook"}),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The recorded requests need no n8n; everything marked n8n does."""
    if (INSTALLED / ".ready").exists():
        return
    for item in items:
        if item.get_closest_marker("n8n"):
            item.add_marker(pytest.mark.skip(reason="no n8n in .n8n: `make test-n8n` installs it"))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Recorder:
    """Passes everything on to agentflow and keeps what was said, under the name of the example that said it."""

    target: str
    port: int = field(default_factory=free_port)
    example: str = ""
    heard: list[dict[str, Any]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def pass_on(self, request: Request) -> Response:
        body = await request.body()
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        client = httpx.AsyncClient(base_url=self.target, timeout=60, trust_env=False)
        asked = client.build_request(
            request.method, request.url.path, params=request.query_params, headers=headers, content=body
        )
        answer = await client.send(asked, stream=True)
        said = self._said(request, body, answer.status_code)
        self.heard.append(said)

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in answer.aiter_raw():
                said["answer"] += piece.decode(errors="replace")
                yield piece

        kept = {name: value for name, value in answer.headers.items() if name != "transfer-encoding"}
        return StreamingResponse(pieces(), answer.status_code, kept, background=BackgroundTask(client.aclose))

    def _said(self, request: Request, body: bytes, status: int) -> dict[str, Any]:
        kind = request.headers.get("content-type", "").partition(";")[0]
        return {
            "example": self.example,
            "method": request.method,
            "path": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            "headers": {name: request.headers[name] for name in KEPT_HEADERS if name in request.headers},
            "body": json.loads(body) if body and kind == "application/json" else body.decode(),
            "status": status,
            "answer": "",
        }

    def lines(self) -> list[dict[str, Any]]:
        """What the examples said, without the key; of answers only their keys, and the ids that later requests use."""
        known, lines = set[str](), []
        for said in sorted((one for one in self.heard if one["example"]), key=lambda one: one["example"]):
            answer = _json(said["answer"])
            asked = json.dumps([said["path"], said["body"]])
            ids = {name: answer[name] for name in ("thread_id", "run_id") if name in answer}
            known |= set(ids.values())
            headers = {name: value.replace(KEY, "KEY") for name, value in said["headers"].items()}
            lines.append({**said, "headers": headers, "answer": sorted(answer), "ids": ids})
            assert "webhook-waiting" in asked or not (set(UUID.findall(asked)) - known), asked
        return lines

    def serve(self) -> uvicorn.Server:
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", self.pass_on, methods=methods)])
        server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=self.port, log_config=None, access_log=False)
        )
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.02)
        return server


@dataclass
class N8n:
    """n8n in a folder of its own. `run` executes a workflow beside the server and returns what each node gave."""

    folder: Path
    agentflow: str
    key: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Credentials, workflows and our node, as a user would bring them in."""
        flows = self.folder / "flows"
        flows.mkdir(parents=True)
        for name, flow in FAULTS.items():
            (flows / f"{name}.json").write_text(json.dumps(flow))
        for file in WORKFLOWS.glob("*.json"):
            text = file.read_text(encoding="utf-8").replace("http://127.0.0.1:8100", self.agentflow)
            (flows / file.name).write_text(text, encoding="utf-8")
        nodes = self.folder / ".n8n" / "nodes" / "node_modules"
        nodes.mkdir(parents=True)
        built = INSTALLED / "n8n-nodes-agentflow"
        (nodes / "n8n-nodes-agentflow").mkdir()
        shutil.copy(built / "package.json", nodes / "n8n-nodes-agentflow")
        shutil.copytree(built / "dist", nodes / "n8n-nodes-agentflow" / "dist")
        credentials = self.folder / "credentials.json"
        credentials.write_text(json.dumps(self._credentials()))
        self._command("import:credentials", f"--input={credentials}")
        self._command("import:workflow", "--separate", f"--input={flows}")

    def start(self, *published: str) -> None:
        """Publish, start, and wait until the published webhooks are there: readiness comes before them."""
        for workflow in published:
            self._command("publish:workflow", f"--id={workflow}")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._program(), "start"], env=self._environment(), cwd=self.folder, stdout=log, stderr=log
            )
        for _ in range(600):
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            if self._registered():
                return
            time.sleep(0.2)
        pytest.fail(f"no webhook after two minutes: {(self.folder / 'log').read_text()[-3000:]}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)

    def run(self, workflow: str) -> dict[str, list[Any]]:
        """Execute it; the JSON items that each node gave. An error of a node is under its name as `error`."""
        done = subprocess.run(
            [*self._program(), "execute", f"--id={workflow}", "--rawOutput"],
            env={**self._environment(), "N8N_RUNNERS_BROKER_PORT": str(free_port())},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        found = re.search(r"^\{.*^\}", done.stdout, re.DOTALL | re.MULTILINE)
        assert found, f"{workflow} printed no result:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        runs = json.loads(found[0])["data"]["resultData"]["runData"]
        return {name: _items(run) for name, run in runs.items()}

    def executions(self, workflow: str) -> list[tuple[str, str]]:
        """Status and stored data of a workflow's executions, newest first, from n8n's own database."""
        query = """select e.status, d.data from execution_entity e join execution_data d on d.executionId = e.id
                   where e.workflowId = ? order by e.id desc"""
        with sqlite3.connect(f"file:{self.folder}/.n8n/database.sqlite?mode=ro", uri=True) as database:
            return list(database.execute(query, (workflow,)))

    def editor(self, chromium: str, pictures: Path, *workflows: str) -> dict[str, list[str]]:
        """Open workflows in the editor; the names of the nodes it shows, and a picture of each."""
        script, playwright = (
            Path(__file__).parent / "editor.mjs",
            INSTALLED / "node_modules" / "playwright-core",
        )
        command = [self._program()[0], script, self.address, chromium, pictures, playwright, *workflows]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        shown: dict[str, list[str]] = json.loads(done.stdout)
        return shown

    def examples(self) -> dict[str, list[str]]:
        """The examples by id, and the names of their nodes."""
        flows = [json.loads(file.read_text(encoding="utf-8")) for file in WORKFLOWS.glob("*.json")]
        return {
            flow["id"]: [one["name"] for one in flow["nodes"] if one["name"] != "About"] for flow in flows
        }

    def tested(self, key: str) -> dict[str, str]:
        """What the credential's own test says, as in the dialogue of the editor."""
        data = {"apiKey": key, "baseUrl": self.agentflow}
        credential = _credential("agentflowNode", "agentflow", "agentflowApi", data)
        with httpx.Client(base_url=self.address, timeout=30, trust_env=False) as client:
            if client.post("/rest/owner/setup", json=OWNER).is_error:
                who = {"emailOrLdapLoginId": OWNER["email"], "password": OWNER["password"]}
                client.post("/rest/login", json=who).raise_for_status()
            answer = client.post("/rest/credentials/test", json={"credentials": credential})
        told: dict[str, str] = answer.raise_for_status().json()["data"]
        return told

    def _registered(self) -> bool:
        try:
            answer = httpx.get(f"{self.address}/webhook/agentflow-ask", timeout=5, trust_env=False)
        except httpx.TransportError:
            return False
        return "GET requests" in answer.text

    def _credentials(self) -> list[dict[str, Any]]:
        return [
            _credential("agentflowBearer", "agentflow key", "httpBearerAuth", {"token": self.key}),
            _credential(
                "agentflowOpenAi",
                "agentflow as OpenAI",
                "openAiApi",
                {"apiKey": self.key, "url": f"{self.agentflow}/v1", "organizationId": "", "header": False},
            ),
            _credential("wrongKey", "wrong", "agentflowApi", {"apiKey": "no", "baseUrl": self.agentflow}),
            _credential(
                "nobody", "down", "agentflowApi", {"apiKey": "", "baseUrl": f"http://127.0.0.1:{NOBODY}"}
            ),
            _credential(
                "agentflowNode", "agentflow", "agentflowApi", {"apiKey": self.key, "baseUrl": self.agentflow}
            ),
        ]

    def _program(self) -> list[str]:
        node = INSTALLED / "node" / "bin" / "node"
        return [
            str(node) if node.exists() else "node",
            str(INSTALLED / "node_modules" / "n8n" / "bin" / "n8n"),
        ]

    def _command(self, *words: str) -> None:
        """One in fifty of n8n's commands crashes for no reason of ours: it is asked twice."""
        done = self._once(*words)
        done = done if done.returncode == 0 else self._once(*words)
        assert done.returncode == 0, f"n8n {' '.join(words)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"

    def _once(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._program(), *words], env=self._environment(), capture_output=True, text=True, check=False
        )

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **QUIET,
            "N8N_USER_FOLDER": str(self.folder),
            "N8N_PORT": str(self.port),
            "WEBHOOK_URL": f"{self.address}/",
            "N8N_RUNNERS_BROKER_PORT": str(self.port + 1),
        }


def _credential(ident: str, name: str, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"id": ident, "name": name, "type": kind, "data": data}


def _json(text: str) -> dict[str, Any]:
    """An object, or nothing: lists and streams are judged by their status."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _items(runs: list[dict[str, Any]]) -> list[Any]:
    """What a node gave over all its runs; an error as its message."""
    found: list[Any] = []
    for run in runs:
        if "error" in run:
            found.append({"error": run["error"].get("description") or run["error"]["message"]})
        for branches in run.get("data", {}).values():
            found += [item["json"] for branch in branches for item in branch or []]
    return found


KEY = "n8n-test-key"
CONFIG = """
model: {engine: double}
memory: {min_score: 0.0}
router: {on_unknown: base, on_ambiguous: first}
roles:
  philosopher: {description: justice and the meaning of life, lora_path: "tiny:philosopher"}
  coder: {description: python code and functions, lora_path: "tiny:coder"}
  sleeper:
    {lora_path: "tiny:artist", threshold: 99, location: disk, warm: demand, cold_budget_ms: 0, when_cold: refuse}
server: {port: 0, api_key: "file:key"}
egress: {allow: [127.0.0.1]}
"""


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory, house_in: Callable[..., Any]) -> Iterator[Recorder]:
    """An agentflow on embedded parts, heard through the recorder."""
    folder = tmp_path_factory.mktemp("agentflow")
    with house_in(folder, CONFIG) as house:
        (folder / "key").write_text(KEY)
        (folder / "key").chmod(0o644)
        house.start()
        recorder = Recorder(house.address)
        server = recorder.serve()
        yield recorder
        server.should_exit = True
        if "AGENTFLOW_TEST_RECORD" in os.environ:
            RECORDED.write_text("".join(f"{json.dumps(one)}\n" for one in recorder.lines()))


@pytest.fixture(scope="session")
def n8n(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[N8n]:
    """n8n with all examples, its webhooks published."""
    n8n = N8n(tmp_path_factory.mktemp("n8n"), recorder.address, KEY)
    n8n.prepare()
    n8n.start("agentflow05", "agentflow06", "agentflow07", "called")
    yield n8n
    n8n.stop()


@pytest.fixture
def client(recorder: Recorder) -> Iterator[httpx.Client]:
    """agentflow itself, past the recorder."""
    key = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=recorder.target, headers=key, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def key() -> str:
    return KEY
