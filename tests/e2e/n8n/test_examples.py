"""Every example of integrations/n8n/workflows, run by a real n8n against a real agentflow."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.n8n


@pytest.fixture
def run(n8n, recorder):
    """Run an example by its number; what each node gave."""

    def go(number: str) -> dict[str, list[Any]]:
        recorder.example = number
        return n8n.run(f"agentflow{number}")

    return go


def last(state: dict[str, Any]) -> str:
    return str(state["messages"][-1]["content"])


def test_01_a_thread_goes_on_where_it_was(run, client) -> None:
    given = run("01")
    assert "error" not in given["One turn"][0]
    second = given["Second turn"][0]
    assert [one["content"] for one in second["messages"] if one["type"] == "human"] == [
        "My cat is called Plato.",
        "What is my cat called?",
    ]
    thread = given["New thread"][0]["thread_id"]
    remembered = client.get("/memory", params={"thread_id": thread}).json()["memories"]
    assert {"My cat is called Plato.", "What is my cat called?"} <= {one["content"] for one in remembered}


@pytest.mark.parametrize("number", ["02", "03"])
def test_an_agent_calls_its_tool_through_agentflow(run, number) -> None:
    given = run(number)
    assert given["order_status"] == [{"response": "Order 42 ships on Monday."}]
    assert "Order 42 ships on Monday." in given["Agent"][0]["output"]


def test_04_embeddings_find_the_text_again(run) -> None:
    assert "sleeps on the stove" in json.dumps(run("04")["Ask the store"])


def test_05_the_callback_arrives_in_n8ns_own_data(n8n, recorder, until) -> None:
    recorder.example = "05"
    asked = {"question": "What is justice?"}
    httpx.post(f"{n8n.address}/webhook/agentflow-async", json=asked, timeout=60, trust_env=False)
    until(lambda: [status for status, _ in n8n.executions("agentflow05")] == ["success"])
    ((_, data),) = n8n.executions("agentflow05")
    assert "[philosopher] You said: What is justice?" in data


def test_06_a_webhook_answers_and_goes_on_with_its_thread(n8n, recorder) -> None:
    recorder.example = "06"
    with httpx.Client(base_url=n8n.address, timeout=60, trust_env=False) as client:
        first = client.post("/webhook/agentflow-ask", json={"question": "What is justice?"}).json()
        asked = {"question": "And mercy?", "thread_id": first["thread_id"]}
        second = client.post("/webhook/agentflow-ask", json=asked).json()
    assert first["answer"].startswith("[philosopher] You said: What is justice?")
    assert second["thread_id"] == first["thread_id"]


def test_07_the_chat_streams(n8n, recorder) -> None:
    recorder.example = "07"
    said = {"action": "sendMessage", "sessionId": "one", "chatInput": "What is justice?"}
    url = f"{n8n.address}/webhook/agentflow-chat/chat"
    with httpx.stream("POST", url, json=said, timeout=60, trust_env=False) as answer:
        pieces = [json.loads(line) for line in answer.iter_lines() if line]
    items = [one["content"] for one in pieces if one["type"] == "item"]
    assert len(items) > 3
    assert "".join(items) == "[philosopher] You said: What is justice?"


def test_08_the_same_key_is_the_same_turn(run) -> None:
    given = run("08")
    assert given["Ask"][0]["run_id"] == given["Ask again"][0]["run_id"]


def test_09_mcp_asks_and_finds_what_was_said(run) -> None:
    given = run("09")
    assert "My cat is called Plato." in json.dumps(given["Ask"])
    assert "My cat is called Plato." in json.dumps(given["Search memory"])


def test_10_the_batch_meets_a_warm_role(run) -> None:
    given = run("10")
    assert [one["tier"] for one in given["Ask the coder"]] == ["vram", "vram"]
    assert {one["role"] for one in given["Ask the coder"]} == {"coder"}


def test_11_our_node_does_all_it_offers(run) -> None:
    given = run("11")
    assert {name: items for name, items in given.items() if items and items[0].get("error")} == {}
    assert given["Get turn"][0]["thread_id"] == given["Ask with role"][0]["thread_id"]
    assert "The office opens at nine" in given["Search memory"][0]["content"]
    assert given["Forget"][0]["counts"]["turns"] == 2


def test_12_our_node_is_a_tool_of_an_agent(run) -> None:
    given = run("12")
    assert "[coder] You said: Use ask_the_coder" in given["Agent"][0]["output"]


@pytest.mark.parametrize(
    ("flow", "told"),
    [
        ("wrongkey", "key"),
        ("unknownrole", "There is no role 'nobody'. Roles: philosopher, coder, sleeper."),
        ("down", "refused"),
        ("cold", "sleeper"),
    ],
)
def test_what_is_wrong_is_readable_in_the_node(n8n, recorder, flow, told) -> None:
    recorder.example = ""
    assert told in n8n.run(flow)["Ask"][0]["error"]


def test_the_credential_tells_a_right_key_from_a_wrong_one(n8n, key) -> None:
    assert n8n.tested(key)["status"] == "OK"
    assert n8n.tested("wrong")["status"] == "Error"


def test_a_callback_waits_for_an_n8n_that_restarts(n8n, client, recorder) -> None:
    recorder.example = ""
    before = len(n8n.executions("called"))
    n8n.stop()
    answer = client.post("/invoke", json={"input": "Hello", "webhook": f"{n8n.address}/webhook/hook"})
    assert answer.status_code == 202
    n8n.start()
    deadline = time.monotonic() + 240  # tries come .5, 1, 2, 8, 30 and 120 s after each other
    while len(n8n.executions("called")) == before:
        assert time.monotonic() < deadline, "no callback within four minutes"
        time.sleep(1)


def test_the_editor_knows_every_node(n8n, tmp_path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium to open the editor with")
    pictures = Path(os.environ.get("AGENTFLOW_TEST_PICTURES", tmp_path))
    shown = n8n.editor(chromium, pictures, *sorted(n8n.examples()))
    assert shown == n8n.examples()
