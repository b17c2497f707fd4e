"""The real server: one turn, its refusals, its end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NEW_THREAD = "00000000-0000-7000-8000-000000000001"


@pytest.fixture(scope="module")
def client(standing):
    with standing.start() as client:
        yield client


def test_a_turn_answers_with_role_adapter_and_memory(client) -> None:
    told = client.post("/invoke", json={"input": "My dog is called Rex", "role": "coder"}).json()
    asked = client.post("/invoke", json={"input": "How is my dog called?", "role": "agentflow/philosopher"})
    answer = asked.json()
    assert answer["output"].startswith("[philosopher]")
    assert answer["thread_id"] != told["thread_id"]
    assert "My dog is called Rex" in [one["content"] for one in answer["memories"]]
    assert asked.headers["x-agentflow-role"] == "philosopher"
    assert asked.headers["x-agentflow-adapter"] == answer["adapter"]
    assert answer["adapter"].startswith("philosopher@")


def test_a_message_finds_its_role_by_meaning(client) -> None:
    answer = client.post("/invoke", json={"input": "write python code with two functions"}).json()
    assert (answer["role"], answer["reason"]) == ("coder", "classified")


def test_streaming_tells_every_step_and_the_tokens(client) -> None:
    with client.stream(
        "POST", "/invoke", json={"input": "hello", "role": "coder", "stream": True}
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [one for one in events if one != "token"] == [
        "accept", "classify", "select", "recall", "generate", "done", "remember",
    ]  # fmt: skip
    tokens = [one["text"] for event, one in zip(events, data, strict=True) if event == "token"]
    assert "".join(tokens) == data[events.index("done")]["output"]


def test_the_same_key_is_the_same_turn(client) -> None:
    key = {"Idempotency-Key": "k"}
    first = client.post("/invoke", json={"input": "hello"}, headers=key)
    again = client.post("/invoke", json={"input": "hello"}, headers=key)
    other = client.post("/invoke", json={"input": "good bye"}, headers=key)
    assert first.json() == again.json()
    assert (other.status_code, other.json()["error"]) == (409, "Conflict")


@pytest.mark.parametrize(
    ("body", "status", "error", "said"),
    [
        ({"input": ""}, 422, "BadInput", "input is empty; say something."),
        ({"input": " \n"}, 422, "BadInput", "input is empty; say something."),
        ({"input": "a\x00b"}, 422, "BadInput", "The body holds a NUL character (\\u0000); no text has one."),
        ({"input": "a" * 10**6}, 413, "TooLarge", "input has 1000000 characters; server.message_chars allows 200000."),
        ({"input": "a", "role": "pirate"}, 422, "UnknownRole", "There is no role 'pirate'. Roles: philosopher, coder."),
        ({"input": "a", "rolle": "x"}, 422, "BadInput", "Unknown field rolle; /docs lists the fields."),
        ({}, 422, "BadInput", "input: Field required."),
        ({"input": 5}, 422, "BadInput", "input: Input should be a valid string."),
    ],
)  # fmt: skip
def test_bad_input_is_explained_and_leaves_nothing(client, body, status, error, said) -> None:
    response = client.post("/invoke", json=body)
    assert (response.status_code, response.json()["error"], response.json()["message"]) == (
        status,
        error,
        said,
    )


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 422),
        (b'{"input": "\xff"}', 422),
        (b'{"input": "\\ud800"}', 422),
        (b"a" * 3_000_000, 413),
        (b"[]", 422),
    ],
)
def test_bytes_that_are_no_request_are_refused(client, content, status) -> None:
    response = client.post("/invoke", content=content, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert response.json()["message"]


@pytest.mark.parametrize(
    ("path", "shape"),
    [("/invoke", ["error", "message"]), ("/threads", ["detail"]), ("/mcp", ["detail"]), ("/v1/responses", ["error"])],
)  # fmt: skip
def test_a_body_that_does_not_say_its_length_is_refused_once_it_is_too_large(client, path, shape) -> None:
    headers = {"content-type": "application/json"}
    response = client.post(path, content=iter([b"a" * 2**20] * 3), headers=headers)
    assert (response.status_code, list(response.json())) == (413, shape)


def test_an_unknown_thread_begins_and_a_bad_id_is_refused(client) -> None:
    begun = client.post("/invoke", json={"input": "hello", "thread_id": NEW_THREAD}).json()
    refused = client.post("/invoke", json={"input": "hello", "thread_id": "../../etc"})
    assert begun["thread_id"] == NEW_THREAD
    assert (refused.status_code, refused.json()["field"]) == (422, "thread_id")


def test_health_ready_and_docs_answer(client) -> None:
    assert client.get("/health").json()["status"] == "ok"
    ready = client.get("/ready")
    assert (ready.status_code, ready.json()["ready"], ready.json()["database"]["ok"]) == (200, True, True)
    docs = client.get("/docs").text
    assert "/static-offline-docs/swagger-ui-bundle.js" in docs
    assert "https://" not in docs
    assert client.get("/nowhere").json()["message"].startswith("There is nothing at this address")


def test_a_command_does_not_take_the_server_of_another_folder_for_its_own(client, standing, tmp_path) -> None:
    port = client.base_url.port
    (tmp_path / "agentflow.yaml").write_text((standing.folder / "agentflow.yaml").read_text())
    own, other = (_told(folder, port) for folder in (standing.folder, tmp_path))
    assert (own.returncode, own.stderr) == (0, "")
    assert " ".join(other.stderr.split()) == (
        f"agentflow: The agentflow of {tmp_path} does not listen on http://127.0.0.1:{port}. "
        "Start it with `agentflow serve`."
    )


def _told(folder, port) -> subprocess.CompletedProcess[str]:
    """What `agentflow adapters` says in a folder whose server should have that port."""
    command = [sys.executable, "-m", "agentflow", "adapters"]
    environment = {**os.environ, "AGENTFLOW_PORT": str(port), "COLUMNS": "500"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_without_a_key_another_host_name_or_content_type_is_refused(client) -> None:
    body = json.dumps({"input": "hello"})
    rebound = client.post(
        "/invoke", content=body, headers={"host": "evil.example", "content-type": "application/json"}
    )
    simple = client.post("/invoke", content=body, headers={"content-type": "text/plain"})
    assert (rebound.status_code, simple.status_code) == (400, 422)


def test_sigterm_ends_everything(bare_house) -> None:
    with bare_house.start() as client:
        client.post("/invoke", json={"input": "hello"})
    assert bare_house.postgres() != []
    assert (bare_house.stop(), bare_house.postgres()) == (0, [])


def agentflow(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentflow", *arguments]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=120, check=False)


def test_a_second_process_on_the_same_data_folder_is_refused(standing, client) -> None:
    second = agentflow(standing.folder, "serve", "--port", "0")
    assert second.returncode == 1
    assert str(standing.process.pid) in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_told_before_anything_starts(bare_house) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = agentflow(bare_house.folder, "serve", "--port", str(port))
    assert refused.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on" in refused.stderr
    assert not (bare_house.folder / ".agentflow").exists()


@contextmanager
def waiting(house, **more) -> Iterator[subprocess.Popen]:
    """A server in the middle of its start: its Postgres is up, and its embedder does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = (
            f"{{kind: remote, model: m, url: 'http://127.0.0.1:{silent.getsockname()[1]}', timeout: 300s}}"
        )
        config = house.folder / "agentflow.yaml"
        config.write_text(config.read_text().replace("{kind: fake}", remote))
        command = [sys.executable, "-m", "agentflow", "serve", *more.pop("arguments", ())]
        with subprocess.Popen(command, cwd=house.folder, stderr=subprocess.DEVNULL, **more) as starting:
            yield starting


def test_a_server_that_is_stopped_while_it_starts_leaves_no_postgres(bare_house, until) -> None:
    with waiting(bare_house) as starting:
        until((bare_house.folder / ".agentflow" / "postgres" / "PG_VERSION").exists)
        starting.terminate()
        assert starting.wait(timeout=120) == 128 + signal.SIGTERM
    assert bare_house.postgres() == []


def test_a_worker_whose_parent_ends_while_it_starts_gives_up(house, until) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        inherited = {"arguments": ("--socket", str(taken.fileno())), "pass_fds": (taken.fileno(),)}
        with waiting(house, stdin=subprocess.PIPE, **inherited) as starting:
            until(lambda: house.postgres() != [])
            starting.stdin.close()
            assert starting.wait(timeout=120) == 128 + signal.SIGTERM
    assert house.postgres() == []


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (("--port", "99999"), "choose a port between 0 and 65535"),
        (("--host", "203.0.113.7", "--port", "0"), "server.host must be an address of this machine"),
    ],
)
def test_an_address_that_nobody_could_listen_on_is_one_paragraph(bare_house, wish, said) -> None:
    refused = agentflow(bare_house.folder, "serve", *wish)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert said in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("code", "said"),
    [("graph = 5", "is a int"), ("raise SystemExit(3)", "SystemExit: 3"), ("import nowhere_at_all", "No module named")],
)  # fmt: skip
def test_a_graph_that_is_none_is_told_at_the_start(house, code, said) -> None:
    (house.folder / "its.py").write_text(code)
    (house.folder / "graphs.json").write_text('{"graphs": {"its": "./its.py:graph"}}')
    refused = agentflow(house.folder, "serve", "--graphs", "graphs.json")
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "graphs.its: ./its.py:graph" in refused.stderr
    assert said in refused.stderr


def test_an_open_address_without_a_key_is_refused(house) -> None:
    refused = agentflow(house.folder, "serve", "--host", "0.0.0.0")  # noqa: S104 - refused is the point
    assert refused.returncode == 1
    assert "server.api_key must be set" in refused.stderr


def test_with_a_key_only_its_holder_is_answered(house) -> None:
    (house.folder / "key").write_text("s3cret")
    config = house.folder / "agentflow.yaml"
    config.write_text(config.read_text().replace("{port: 0}", '{port: 0, api_key: "file:key"}'))
    with house.start() as client:
        body = {"input": "hello"}
        assert client.post("/invoke", json=body).status_code == 401
        assert client.post("/invoke", json=body, headers={"X-Api-Key": "wrong"}).status_code == 401
        assert client.post("/invoke", json=body, headers={"X-Api-Key": "s3cret"}).status_code == 200
        assert (
            client.post("/invoke", json=body, headers={"Authorization": "Bearer s3cret"}).status_code == 200
        )
        assert client.get("/health").status_code == 200
        listed = client.get("/openapi.json", headers={"X-Api-Key": "s3cret"}).json()["paths"]
        open_ones = [
            (method, path)
            for path, methods in listed.items()
            for method in methods
            if client.request(method, path).status_code != 401
        ]
        assert sorted(open_ones) == sorted(one for one in open_ones if one[1] in ("/health", "/ok"))


def test_a_key_made_beside_a_running_server_closes_it_and_opens_it_for_its_holder(house) -> None:
    with house.start() as client:
        made = agentflow(house.folder, "keys", "create", "laptop", "--user", "ann")
        key = made.stdout.strip()
        assert (made.returncode, key[:3]) == (0, "af_")
        assert client.post("/invoke", json={"input": "hello"}).status_code == 401
        told = client.post("/invoke", json={"input": "hello"}, headers={"Authorization": f"Bearer {key}"})
        assert told.status_code == 200
        assert client.get("/metrics", headers={"X-Api-Key": key}).status_code == 403
        listed = agentflow(house.folder, "keys", "list").stdout
        assert "laptop" in listed
        assert key not in listed
        assert agentflow(house.folder, "keys", "disable", "other").returncode == 1


def test_a_client_that_stalls_does_not_keep_the_server_from_stopping(house) -> None:
    config = house.folder / "agentflow.yaml"
    config.write_text(config.read_text().replace("{port: 0}", "{port: 0, drain: 1s}"))
    with house.start():
        host, port = house.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as stalled:
            stalled.sendall(b"POST /invoke HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{")
            time.sleep(0.3)
            assert house.stop() == 0
            assert b"408" not in stalled.recv(4096)  # which ends it where the drain does not


def test_metrics_tell_of_turns_without_naming_anybody(client) -> None:
    client.post("/invoke", json={"input": "What is justice? unmistakable"})
    text = client.get("/metrics").text
    assert 'agentflow_turn_seconds_count{role="philosopher"' in text
    assert re.search(
        r'agentflow_adapter_info\{adapter="coder@[0-9a-f]{12}",role="coder",tier="\w+"\} 1.0', text
    )
    assert 'agentflow_request_seconds_count{door="invoke",status="200"}' in text
    assert 'agentflow_runs{status="queued"} 0.0' in text
    assert 'agentflow_adapter_loads_total{role="philosopher",tier="vram"}' in text
    assert "unmistakable" not in text


def test_a_run_of_the_protocol_is_counted_by_role_and_says_who_answered(client) -> None:
    asked = {"messages": [{"role": "user", "content": "python code"}], "role": "coder"}
    answer = client.post("/runs/wait", json={"assistant_id": "agent", "input": asked})
    said = {name: answer.headers[f"x-agentflow-{name}"] for name in ("role", "tier", "kind")}
    assert said == {"role": "coder", "tier": said["tier"], "kind": "turn"}
    assert re.fullmatch(r"coder@[0-9a-f]{12}", answer.headers["x-agentflow-adapter"])
    counted = client.get("/metrics").text
    assert re.search(r'agentflow_turn_seconds_count\{role="coder",status="done",tier="\w+"\} [1-9]', counted)
