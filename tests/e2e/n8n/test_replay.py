"""What a real n8n said to us (recorded.jsonl, `AGENTFLOW_TEST_RECORD=1 make test-n8n`) is answered as it was then."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

RECORDED = Path(__file__).parent / "recorded.jsonl"
LINES = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
EXAMPLES = sorted({line["example"] for line in LINES})


def said(client: httpx.Client, line: dict[str, Any], ids: dict[str, str], key: str) -> httpx.Response:
    """The request as n8n sent it, with this server's ids and key."""
    text = json.dumps([line["path"], line["body"], line["headers"]]).replace("KEY", key)
    for old, new in ids.items():
        text = text.replace(old, new)
    path, body, headers = json.loads(text)
    content = body if isinstance(body, str) else json.dumps(body)
    return client.request(line["method"], path, headers=headers, content=content.encode())


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_n8n_said_is_answered_as_then(recorder, key, example) -> None:
    ids: dict[str, str] = {}
    answers = []
    with httpx.Client(base_url=recorder.target, timeout=60, trust_env=False) as client:
        for line in (one for one in LINES if one["example"] == example):
            answer = said(client, line, ids, key)
            found = answer.json() if line["answer"] else {}
            answers.append((answer.status_code, sorted(set(found) & set(line["answer"]))))
            ids |= {old: found[name] for name, old in line["ids"].items()}
    assert answers == [(line["status"], line["answer"]) for line in LINES if line["example"] == example]


def test_every_example_is_recorded() -> None:
    shipped = Path(__file__).parents[3] / "integrations" / "n8n" / "workflows"
    assert sorted(file.name[:2] for file in shipped.glob("*.json")) == EXAMPLES
