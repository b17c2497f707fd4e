"""A turn that nobody waits for: accepted, answered by a signed callback, asked for by its id."""

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

SECRET = "a secret of the test"
CONFIG = """
egress: {allow: [127.0.0.1]}
webhooks: {secret: "env:CALLBACK_SECRET"}
"""


class Receiver(ThreadingHTTPServer):
    """A workflow that waits: `answers` are given in turn, the last one for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[str, dict[str, str], bytes, float]] = []
        self.answers: list[tuple[int, bytes]] = [(200, b"")]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/webhook-waiting/7?signature=abc"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append((self.path, headers, body, time.monotonic()))
        status, said = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def house(house, monkeypatch: pytest.MonkeyPatch):
    """One that may call this machine, and signs."""
    monkeypatch.setenv("CALLBACK_SECRET", SECRET)
    config = house.folder / "agentflow.yaml"
    config.write_text(config.read_text() + CONFIG)
    return house


def asked(client, receiver: Receiver, text: str = "hello", **headers: str):
    body = {"input": text, "role": "coder", "webhook": receiver.url}
    return client.post("/invoke", json=body, headers=headers)


def test_a_turn_is_called_back_signed_until_it_is_taken(house, receiver, until) -> None:
    busy = (409, b'{"message": "The execution \'7\' is running already."}')
    receiver.answers = [busy, busy, (500, b""), (200, b"")]
    with house.start() as client:
        accepted = asked(client, receiver)
        assert accepted.status_code == 202
        run = accepted.json()["run_id"]
        assert accepted.json() == {
            "run_id": run,
            "thread_id": accepted.json()["thread_id"],
            "status": "running",
        }
        assert accepted.headers["location"] == f"/turns/{run}"
        until(lambda: len(receiver.got) == 4)
        turn = client.get(f"/turns/{run}?wait=5").json()
    assert {path for path, *_ in receiver.got} == {"/webhook-waiting/7?signature=abc"}
    path, headers, body, _ = receiver.got[-1]
    told = json.loads(body)
    assert (told["status"], told["output"], told["attempt"]) == ("done", "[coder] You said: hello", 4)
    assert {key: told[key] for key in turn} == turn
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert (headers["webhook-id"], headers["webhook-signature"]) == (run, f"v1,{mac}")
    assert "signature=abc" not in (house.folder / "err").read_text()
    assert "finished" not in path


def test_a_finished_workflow_is_left_alone_and_the_turn_says_why(house, receiver, until) -> None:
    receiver.answers = [(409, b"The execution has finished already.")]
    with house.start() as client:
        run = asked(client, receiver).json()["run_id"]
        until(lambda: "callback" in client.get(f"/turns/{run}").json())
        trouble = client.get(f"/turns/{run}").json()["callback"]
        assert 'agentflow_jobs{name="callback",status="failed"} 1.0' in client.get("/metrics").text
        time.sleep(1)
    assert trouble == {"status": "given up", "tries": 1, "reason": "HTTP 409", "next": None}
    assert len(receiver.got) == 1


def test_a_kill_in_the_middle_of_a_callback_delivers_it_again(house, receiver, until) -> None:
    receiver.answers = [(500, b""), (200, b"")]
    with house.start() as client:
        run = asked(client, receiver).json()["run_id"]
        until(lambda: len(receiver.got) == 1)
        house.kill()
    with house.start():
        until(lambda: len(receiver.got) == 2)
    assert {headers["webhook-id"] for _, headers, *_ in receiver.got} == {run}


def test_a_run_of_the_protocol_is_told_as_turns_are(house, receiver, until) -> None:
    receiver.answers = [(503, b""), (200, b"")]
    with house.start() as client:
        body = {"assistant_id": "agent", "input": {"messages": "hello"}, "webhook": receiver.url}
        run = client.post("/runs", json=body).json()["run_id"]
        until(lambda: len(receiver.got) == 2)
    told = [json.loads(body) for _, _, body, _ in receiver.got]
    assert told[0] == told[1]
    assert (told[0]["run_id"], told[0]["status"]) == (run, "success")
    assert told[0]["values"]["messages"][-1]["content"].endswith("You said: hello")


def test_a_kill_between_the_turn_and_its_callback_loses_neither(house, receiver, until) -> None:
    with (
        house.start(fault="after_commit") as client,
        contextlib.suppress(httpx.TransportError),
    ):  # it dies in the middle of the answer, or just after
        asked(client, receiver)
    house.wait_for_death()
    assert receiver.got == []
    with house.start():
        until(lambda: len(receiver.got) == 1)
    assert json.loads(receiver.got[0][2])["output"] == "[coder] You said: hello"


def test_a_repeated_request_is_one_turn_and_one_callback(house, receiver, until) -> None:
    with house.start() as client:
        first, again = (asked(client, receiver, **{"Idempotency-Key": "once"}) for _ in range(2))
        assert first.json() == again.json()
        until(lambda: len(receiver.got) >= 1)
        time.sleep(1.5)
    assert len(receiver.got) == 1


def test_a_failed_turn_is_called_back_too(house, receiver, until) -> None:
    config = house.folder / "agentflow.yaml"
    config.write_text(config.read_text().replace("engine: double", 'engine: vllm, url: "http://127.0.0.1:9"'))
    with house.start() as client:
        client.post("/invoke", json={"input": "hello", "role": "base", "webhook": receiver.url})
        until(lambda: len(receiver.got) == 1)
    told = json.loads(receiver.got[0][2])
    assert (told["status"], told["error"]["error"]) == ("failed", "EngineDown")


def test_a_webhook_to_the_private_network_is_refused_unless_it_is_listed(house, receiver) -> None:
    config = house.folder / "agentflow.yaml"
    config.write_text(config.read_text().replace("egress: {allow: [127.0.0.1]}", ""))
    with house.start() as client:
        for url in (
            receiver.url,
            "http://169.254.169.254/",
            "http://localhost:1/",
            "file:///etc/passwd",
            "x",
        ):
            refused = client.post("/invoke", json={"input": "hello", "webhook": url})
            assert (refused.status_code, refused.json()["error"]) == (422, "AddressRefused")
            assert refused.json()["message"].startswith("webhook blocked: ")
        late = client.post("/invoke", json={"input": "hello", "role": "coder", "wait": 0})
        assert late.status_code == 202
        found = client.get(f"{late.headers['location']}?wait=20").json()
        assert (found["status"], found["output"]) == ("done", "[coder] You said: hello")
        assert client.get("/turns/00000000-0000-7000-8000-000000000001").status_code == 404
        assert client.get("/turns/no-id").status_code == 422
    assert receiver.got == []
