"""The owner's rights over HTTP and on the command line."""

import json
from collections.abc import Iterator

import httpx
import pytest


@pytest.fixture(scope="module")
def client(standing) -> Iterator[httpx.Client]:
    with standing.start() as opened:
        yield opened


def says(client: httpx.Client, text: str) -> dict[str, object]:
    return client.post("/invoke", json={"input": text, "role": "base"}).json()


def listed(client: httpx.Client, **query: object) -> list[dict[str, object]]:
    return client.get("/memory", params=query).json()["memories"]


def test_what_was_said_is_listed_shown_and_searched_with_why(client) -> None:
    turn = says(client, "My dog is called Rex")
    (mine,) = listed(client, text="dog is called rex", thread_id=turn["thread_id"], kind="turn", limit=1)
    assert client.get(f"/memory/{mine['id']}").json() == {**mine, "history": [], "sources": []}
    found = client.get("/memory/search", params={"q": "What is my dog called?"}).json()
    assert found["memory"] == "full"
    assert "dog" in found["memories"][0]["why"]["matched"]
    assert found["memories"][0]["recalled"] is True


def test_an_edit_is_found_at_once_and_a_forgotten_one_is_not_there(client) -> None:
    turn = says(client, "My cat is called Tom")
    (number,) = [one["id"] for one in listed(client, thread_id=turn["thread_id"]) if one["speaker"] == "user"]
    edited = client.patch(f"/memory/{number}", json={"content": "My cat is called Ginger", "pinned": True})
    assert (edited.json()["content"], edited.json()["pinned"]) == ("My cat is called Ginger", True)
    found = client.get("/memory/search", params={"q": "Ginger"}).json()["memories"]
    assert found[0]["id"] == number
    receipt = client.delete(f"/memory/{number}").json()
    assert (receipt["status"], receipt["counts"]["memories"]) == ("done", 1)
    assert client.get(f"/memory/receipts/{receipt['receipt']}").json()["digest"] == receipt["digest"]
    assert client.get(f"/memory/{number}").status_code == 404
    assert client.delete(f"/memory/{number}").status_code == 404


def test_a_forgotten_thread_is_gone_for_later_turns_too(client) -> None:
    turn = says(client, "The code of the safe is 4711")
    told = client.post("/memory/forget", json={"thread_id": turn["thread_id"], "preview": True}).json()
    assert (told["preview"], told["counts"]["threads"]) == (True, 1)
    receipt = client.post("/memory/forget", json={"thread_id": turn["thread_id"]}).json()
    assert receipt["counts"] | {"postings": 0, "words": 0} == told["counts"] | {"postings": 0, "words": 0}
    assert listed(client, text="4711") == []
    assert "4711" not in json.dumps(says(client, "What is the code of the safe?")["memories"])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("GET", "/memory/search?q=%20", None, 422, "empty"),
        ("GET", "/memory/search?q=a&collection=none", None, 422, "Collections: conversations"),
        ("GET", "/memory/999999", None, 404, "no memory 999999"),
        ("GET", "/memory/receipts/00000000-0000-0000-0000-000000000000", None, 404, "no receipt"),
        ("GET", "/memory?limit=0", None, 422, "limit"),
        ("PATCH", "/memory/1", {"content": ""}, 422, "content"),
        ("PATCH", "/memory/1", {"expires_at": "tomorrow"}, 422, "expires_at"),
        ("POST", "/memory/forget", {}, 422, "exactly one"),
        ("POST", "/memory/forget", {"ids": [1], "everything": "user"}, 422, "exactly one"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_way_out(client, method, path, body, status, word) -> None:
    refused = client.request(method, path, json=body)
    assert (refused.status_code, word in refused.json()["message"]) == (status, True), refused.json()
