"""Callbacks: when they are tried again, and how they are signed."""

import base64
import hashlib
import hmac

import pytest

from agentflow.egress import Answer, Egress
from agentflow.errors import AddressRefused, Unreachable
from agentflow.records.callbacks import Due
from agentflow.runs.callbacks import PAUSES, Callbacks, Verdict, judge, signed

SECRET = "whsec_" + base64.b64encode(b"key").decode()


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    return Answer(status, headers, body)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer(200), "taken"),
        (answer(204), "taken"),
        (answer(409, b"The execution is running already"), "again"),
        (answer(409, b"The execution '1' has finished already."), "dead"),
        (answer(401), "dead"),
        (answer(404), "dead"),
        (answer(404, b"<pre>Cannot POST /webhook-waiting/1</pre>"), "again"),
        (answer(404, b'The requested webhook "POST hook" is not registered.'), "again"),
        (answer(410), "dead"),
        (answer(422), "dead"),
        (answer(302), "dead"),
        (answer(408), "again"),
        (answer(429), "again"),
        (answer(500), "again"),
        (answer(503), "again"),
        (None, "again"),
    ],
)
def test_a_receiver_that_may_still_take_it_is_asked_again(said, kind) -> None:
    assert judge(said, "no answer", 1).kind == kind


def test_the_pauses_grow_and_end() -> None:
    pauses = [judge(answer(500), "", number).pause for number in range(1, 9)]
    assert pauses == sorted(PAUSES)
    assert pauses[0] == 0.5
    assert judge(answer(500), "", 9) == Verdict("dead", "HTTP 500, after 9 tries")


def test_a_receiver_may_ask_for_more_time_within_reason() -> None:
    assert judge(Answer(503, {"retry-after": "20"}, b""), "", 1).pause == 20
    assert judge(Answer(503, {"retry-after": "99999"}, b""), "", 1).pause == 1800
    assert judge(Answer(503, {"retry-after": "soon"}, b""), "", 1).pause == 0.5


def test_the_signature_is_that_of_standard_webhooks() -> None:
    expected = base64.b64encode(hmac.new(b"key", b"msg_1.1700000000.{}", hashlib.sha256).digest()).decode()
    assert signed(SECRET, "msg_1", 1700000000, b"{}") == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,{expected}",
    }
    assert signed("key", "msg_1", 1700000000, b"{}") == signed(SECRET, "msg_1", 1700000000, b"{}")


class Records:
    """What becomes of one callback."""

    def __init__(self) -> None:
        self.fate: list[tuple] = []

    async def due(self, **_: float) -> list[Due]:
        return [
            Due(7, 1, "http://n8n.example/webhook?signature=s", "run", {"run_id": "run", "status": "done"})
        ]

    async def taken(self, *fate: object) -> None:
        self.fate.append(("taken", *fate))

    async def later(self, *fate: object) -> None:
        self.fate.append(("later", *fate))

    async def give_up(self, *fate: object) -> None:
        self.fate.append(("given up", *fate))


class Post(Egress):
    """Answers as it is told."""

    def __init__(self, said: Answer | Exception) -> None:
        self.said = said
        self.posts: list[tuple] = []

    async def post(self, url, content, headers, *, seconds=10.0):
        self.posts.append((url, content, dict(headers)))
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(
    ("said", "fate"),
    [
        (answer(200), ("taken", 7)),
        (answer(500), ("later", 7, "HTTP 500", 0.5)),
        (answer(404), ("given up", 7, "HTTP 404")),
        (Unreachable("gone"), ("later", 7, "gone", 0.5)),
        (AddressRefused("blocked"), ("given up", 7, "blocked")),
    ],
)
async def test_each_end_is_recorded(said, fate) -> None:
    records, post = Records(), Post(said)
    assert await Callbacks(records, post, SECRET, lambda: 1700000000.0).deliver() == 1
    assert records.fate == [fate]
    url, content, headers = post.posts[0]
    assert url == "http://n8n.example/webhook?signature=s"
    assert content == b'{"run_id": "run", "status": "done", "attempt": 1}'
    assert headers == {"content-type": "application/json", **signed(SECRET, "run", 1700000000, content)}


async def test_the_log_does_not_show_the_signature_of_an_address(capsys) -> None:
    await Callbacks(Records(), Post(answer(404))).deliver()
    said = capsys.readouterr()
    assert "n8n.example/webhook" in said.out + said.err
    assert "signature=s" not in said.out + said.err
