"""What real clients said to us is answered as it was then: JavaScript SDKs, and chat front ends driven in a browser.

Recorded through a proxy and stripped of what their makers wrote: the form of their prompts stayed, the words are ours.
"""

import json
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

FOLDER = Path(__file__).parent / "recorded"
GRAPHS = Path(__file__).parents[1] / "graphs" / "langgraph.json"
CLIENTS = sorted(file.stem for file in FOLDER.glob("*.jsonl"))
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
ENDED = ("completed", "interrupted", "failed")
"""After one of these a stream that stays open is left."""


@pytest.fixture(scope="module")
def client(founded) -> Iterator[httpx.Client]:
    house = founded("")
    with house.start("--graphs", str(GRAPHS), "--studio") as made:
        yield made


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


class Replay:
    """Says it all again, with this server's ids and answers in place of those of then."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.known: dict[str, str] = {}

    def said(self, line: dict[str, Any]) -> dict[str, Any]:
        """What the request was answered with, in the form of the recording."""
        text = json.dumps([line["path"], line["body"]])
        for then, now in self.known.items():
            text = text.replace(then, now)
        path, body = json.loads(text)
        content = body if isinstance(body, str) else json.dumps(body)
        sent = {"content": content.encode()} if body is not None else {}
        with self.client.stream(line["method"], unquote(path), headers=line["headers"], **sent) as answer:
            told = heard(answer) if "events" in line else answer.read().decode()
        self.learn(line, answer, told)
        found = {"status": answer.status_code}
        if "x-agentflow-kind" in answer.headers:
            found["kind"] = answer.headers["x-agentflow-kind"]
        if "events" in line:
            found["events"] = names(told)
        elif "keys" in line:
            found["keys"] = sorted(set(json.loads(told)) & set(line["keys"]))
        return found

    def learn(self, line: dict[str, Any], answer: httpx.Response, told: str) -> None:
        for then, (first, *rest) in line.get("ids", {}).items():
            if first == "content-location":
                self.known[then] = UUID.findall(answer.headers["content-location"])[rest[0]]
            elif first == "events":
                named = [json.loads(data) for name, data in frames(told) if name == rest[0]]
                self.known[then] = reduce(lambda found, key: found[key], rest[1:], named)
            else:
                self.known[then] = reduce(lambda found, key: found[key], [first, *rest], json.loads(told))
        if line.get("said"):
            self.known[json.dumps(line["said"])[1:-1]] = json.dumps(words(told))[1:-1]


def heard(answer: httpx.Response) -> str:
    """A stream to its end, or to the end of its run."""
    told = []
    for line in answer.iter_lines():
        told.append(line)
        if "lifecycle" in line and any(f'"event":"{one}"' in line for one in ENDED):
            break
    return "\n".join(told)


def frames(told: str) -> list[tuple[str, str]]:
    """Names and data of a stream's events."""
    return re.findall(r"^(?:event: (\S+)\n)?data: (.*)$", told.replace("\r", ""), re.MULTILINE)


def names(told: str) -> list[str]:
    """The kinds of events of a stream, in the order of their first ones."""
    return list(
        dict.fromkeys(name or ("[DONE]" if data == "[DONE]" else "data") for name, data in frames(told))
    )


def words(told: str) -> str:
    """The answer in a chat completion, whole or streamed."""
    if told.startswith("{"):
        return str(json.loads(told)["choices"][0]["message"]["content"])
    chunks = [json.loads(data) for _, data in frames(told) if data != "[DONE]"]
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"])


def expected(line: dict[str, Any]) -> dict[str, Any]:
    return {key: line[key] for key in ("status", "kind", "events", "keys") if key in line}


def remembered(client: httpx.Client, user: str | None) -> list[str]:
    """What is recalled of a user's own words, oldest first."""
    headers = {} if user is None else {"X-Agentflow-User": user}
    found = client.get("/memory", params={"limit": 200}, headers=headers).json()["memories"]
    said = [one["content"] for one in reversed(found) if not one["hidden"]]
    return [one for one in said if not one.startswith("[")]


@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_said_is_answered_as_then(client, name) -> None:
    replay = Replay(client)
    for number, line in enumerate(lines(name)):
        assert replay.said(line) == expected(line), f"{name}, line {number + 1}: {line['path']}"


def test_two_users_of_a_front_end_keep_what_they_said_themselves(client) -> None:
    replay = Replay(client)
    for line in lines("open-webui"):
        text = json.dumps(line).replace('"ada"', '"eve"').replace('"bob"', '"dan"')
        for part in set(UUID.findall(text)):
            text = text.replace(part, part[::-1].replace("-", "")[:32])
        replay.said(json.loads(text))
    assert remembered(client, "eve") == [
        "My cat is called Plato. What is justice?",
        "And what is mercy?",
        "How is my cat called?",
        "What is courage?",
        "My ferret is Ida",
        "How many boats are there?",
    ]
    assert remembered(client, "dan") == ["How is my cat called?"]
