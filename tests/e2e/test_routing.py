"""Routing through the real server and the real commands: decisions, feedback, pins, roles that change."""

import json
import os
import socket
import subprocess
import sys

import pytest

CONFIG = """
model: {engine: double}
embedder: {kind: fake}
memory: {min_score: 0.0}
router: {feedback: FEEDBACK, on_unknown: base, on_ambiguous: first}
roles:
  coder:
    examples:
      - fix this python function
      - why does my python loop never end
      - write a unit test for this class
      - refactor this python class
      - the python test of my function fails
    rules: [{keywords: [traceback]}]
    lora_path: "tiny:coder"
  artist:
    examples:
      - paint a sunset over the sea
      - paint a castle in oil colours
      - draw a dragon over the castle
      - draw the sea in warm colours
      - a watercolour of two cats
    lora_path: "tiny:artist"
server: {port: 0}
"""
COOK = """
  cook: {examples: [boil an egg, bake a bread, fry an onion, bake a cake, cook some rice]}
server:"""
NOBODY = "00000000-0000-7000-8000-00000000dead"


@pytest.fixture(scope="module")
def place(standing):
    (standing.folder / "agentflow.yaml").write_text(CONFIG.replace("FEEDBACK", "immediate"))
    return standing


@pytest.fixture(scope="module")
def client(place):
    with place.start() as client:
        yield client


def route(client, text, **more):
    return client.post("/route", json={"input": text, **more}).json()


def agentflow(folder, *words, code=0) -> str:
    """What a command prints, run in a folder; ends with the expected code."""
    environment = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-m", "agentflow", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_decision_can_be_asked_for_without_a_turn(client) -> None:
    found = route(client, "my python function fails")
    assert (found["role"], found["reason"], found["question"]) == ("coder", "classified", None)
    assert found["intent"]["nearest"][0]["text"] == "the python test of my function fails"
    assert route(client, "a traceback in the sunset")["selection"]["rule"] == "traceback"
    assert route(client, "/artist do it")["text"] == "do it"


def test_a_turn_stores_its_decision_and_tells_it_in_headers(client) -> None:
    response = client.post("/invoke", json={"input": "paint the castle in warm colours"})
    turn, told = response.json(), response.headers["x-agentflow-decision"]
    assert (turn["role"], turn["selection"]["reason"]) == ("artist", "classified")
    assert told.startswith(f"{turn['run_id']}; router={turn['intent']['router']}; confidence=")
    assert response.headers["x-agentflow-reason"] == "classified"


def test_a_decision_knows_its_thread(client) -> None:
    thread = client.post("/invoke", json={"input": "draw a dragon over the castle"}).json()["thread_id"]
    found = route(client, "yes, go on", thread_id=thread)
    assert (found["role"], found["reason"]) == ("artist", "reply")
    unknown = client.post("/route", json={"input": "hello", "thread_id": NOBODY})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "NotFound")


def test_a_pinned_role_keeps_the_thread_until_the_pin_is_gone(client) -> None:
    thread = client.post("/invoke", json={"input": "draw a dragon over the castle"}).json()["thread_id"]
    assert client.put(f"/threads/{thread}/role", json={"role": "coder"}).json()["pinned_role"] == "coder"
    pinned = client.post("/invoke", json={"input": "paint a sunset over the sea", "thread_id": thread}).json()
    assert (pinned["role"], pinned["reason"]) == ("coder", "pinned")
    client.put(f"/threads/{thread}/role", json={"role": None})
    freed = client.post("/invoke", json={"input": "paint a sunset over the sea", "thread_id": thread}).json()
    assert freed["role"] == "artist"
    assert client.put(f"/threads/{NOBODY}/role", json={"role": "coder"}).status_code == 404
    unknown = client.put(f"/threads/{thread}/role", json={"role": "poet"}).json()["detail"]
    assert unknown.startswith("There is no role 'poet'. Roles: ")


def test_feedback_teaches_at_once_where_the_file_says_so(client) -> None:
    turn = client.post("/invoke", json={"input": "zebra quartz invoice"}).json()
    given = client.post(f"/turns/{turn['run_id']}/feedback", json={"role": "coder"}).json()
    assert (given["role"], given["status"], given["text"]) == ("coder", "accepted", "zebra quartz invoice")
    assert route(client, "a zebra quartz invoice")["role"] == "coder"
    assert route(client, "a zebra quartz invoice")["intent"]["nearest"][0]["text"] == "zebra quartz invoice"
    rejected = client.post(f"/feedback/{given['id']}", json={"accept": False}).json()
    assert rejected["status"] == "rejected"
    assert "zebra quartz invoice" not in [one["text"] for one in client.get("/routes").json()["examples"]]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"/turns/{NOBODY}/feedback", {"role": "coder"}, 404),
        (f"/turns/{NOBODY}/feedback", {"role": "poet"}, 422),
        (f"/turns/{NOBODY}/feedback", {}, 422),
        ("/turns/x/feedback", {"role": "coder"}, 422),
        ("/feedback/999999", {"accept": True}, 404),
        ("/route", {"input": " "}, 422),
        ("/route", {"input": "hello", "role": "poet"}, 422),
    ],
)
def test_bad_requests_are_explained(client, path, body, status) -> None:
    response = client.post(path, json=body)
    assert response.status_code == status
    assert response.json()["message"]


def test_roles_come_and_go_while_the_server_runs(place, client, until) -> None:
    file = place.folder / "agentflow.yaml"
    before = file.read_text()
    file.write_text(before.replace("\nserver:", COOK))
    until(lambda: "cook" in client.get("/routes").json()["roles"])
    answer = client.post("/invoke", json={"input": "bake a cake and a bread"}).json()
    assert (answer["role"], answer["adapter"]) == ("cook", None)
    file.write_text("roles: [broken")
    file.write_text(before)
    until(lambda: "cook" not in client.get("/routes").json()["roles"])
    assert client.post("/invoke", json={"input": "bake a bread", "role": "cook"}).status_code == 422


def test_the_commands_explain_measure_and_suggest(house) -> None:
    (house.folder / "agentflow.yaml").write_text(CONFIG.replace("FEEDBACK", "review"))
    (house.folder / "said.jsonl").write_text(
        "\n".join(
            json.dumps({"text": text, "role": role})
            for text, role in [
                ("fix my python class", "coder"),
                ("paint two cats", "artist"),
                ("1 2 3", None),
            ]
        )
    )
    measured = agentflow(house.folder, "routes", "evaluate", "said.jsonl", "--picture", "matrix.svg")
    assert "accuracy 1.000" in measured
    assert (house.folder / "matrix.svg").read_text().startswith("<svg ")
    assert json.loads(agentflow(house.folder, "routes", "evaluate", "--json"))["roles"] == ["artist", "coder"]
    assert "reject_rate" in agentflow(house.folder, "routes", "tune")
    assert "nothing to suggest" in agentflow(house.folder, "routes", "suggest")
    (house.folder / "bad.jsonl").write_text('{"text": "x", "role": "poet"}')
    assert "line 1: there is no role 'poet'" in agentflow(
        house.folder, "routes", "evaluate", "bad.jsonl", code=1
    )


def test_feedback_waits_for_review_where_the_file_says_so(house) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = CONFIG.replace("FEEDBACK", "review").replace("port: 0", f"port: {port}")
    (house.folder / "agentflow.yaml").write_text(text)
    with house.start() as client:
        run = client.post("/invoke", json={"input": "zebra quartz invoice"}).json()["run_id"]
        given = client.post(f"/turns/{run}/feedback", json={"role": "artist"}).json()
        assert given["status"] == "waiting"
        assert "zebra quartz invoice" in agentflow(house.folder, "routes", "review")
        agentflow(house.folder, "routes", "review", "--accept", str(given["id"]))
        assert "artist · " in agentflow(house.folder, "route", "a zebra quartz invoice")
        assert client.get("/feedback").json() == {"feedback": []}
