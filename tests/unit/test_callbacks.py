"""Callbacks: when they are tried again, and how they are signed."""

import base64
import hashlib
import hmac

import pytest
import structlog
from structlog.testing import capture_logs

from agentflow.egress import Answer, Egress
from agentflow.errors import AddressRefused, Unreachable
from agentflow.records.jobs import GivenUp, Later
from agentflow.runs.callbacks import PAUSES, Post, Verdict, judge, signed

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


def test_who_redirects_is_told_that_nobody_follows() -> None:
    assert (
        judge(answer(307), "", 1).reason
        == "HTTP 307: redirects are not followed; give the address it leads to"
    )


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


class Answers(Egress):
    """Answers as it is told, one after the other."""

    def __init__(self, *said: Answer | Exception) -> None:
        self.said = list(said)
        self.posts: list[tuple[str, bytes, dict[str, str]]] = []

    async def post(self, url, content, headers, *, seconds=10.0):
        self.posts.append((url, content, dict(headers)))
        said = self.said.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


class Clock:
    """Only rests pass time, and what a test lets pass."""

    def __init__(self, *, per_look: float = 0.0) -> None:
        self.now, self.per_look, self.rested = 1700000000.0, per_look, []

    def __call__(self) -> float:
        self.now += self.per_look
        return self.now

    async def rest(self, seconds: float) -> None:
        self.rested.append(seconds)
        self.now += seconds


URL = "http://n8n.example/webhook?signature=s"


async def delivered(answers: Answers, clock: Clock, payload: dict | None = None) -> None:
    post = Post(answers, SECRET, clock, clock.rest)
    await post.deliver(URL, "run", lambda tries: b"try %d" % tries, payload or {})


async def test_short_pauses_are_slept_through_and_the_first_long_one_is_a_later_job() -> None:
    answers, clock = Answers(*[answer(409)] * 4), Clock()
    with pytest.raises(Later) as later:
        await delivered(answers, clock)
    assert clock.rested == [0.5, 1.0, 2.0]
    assert [body for _, body, _ in answers.posts] == [b"try 1", b"try 2", b"try 3", b"try 4"]
    assert (later.value.pause, later.value.noted, str(later.value)) == (8.0, {"tries": 4}, "HTTP 409")


async def test_a_later_job_goes_on_counting() -> None:
    answers = Answers(answer(503))
    with pytest.raises(Later) as later:
        await delivered(answers, Clock(), {"run": "run", "tries": 4, "reason": "HTTP 409"})
    assert (later.value.pause, later.value.noted) == (30.0, {"tries": 5})


async def test_a_receiver_that_hangs_does_not_hold_a_place() -> None:
    answers, clock = Answers(Unreachable("timed out")), Clock(per_look=10)
    with pytest.raises(Later) as later:
        await delivered(answers, clock)
    assert (later.value.pause, clock.rested) == (0.5, [])


@pytest.mark.parametrize(
    ("said", "reason"),
    [(answer(404), "HTTP 404"), (AddressRefused("blocked"), "blocked")],
)
async def test_what_will_never_be_taken_is_given_up_with_its_reason(said, reason) -> None:
    with pytest.raises(GivenUp) as given_up:
        await delivered(Answers(said), Clock())
    assert (str(given_up.value), given_up.value.noted) == (reason, {"tries": 1})


async def test_every_try_is_signed_under_the_same_name() -> None:
    answers = Answers(answer(500), answer(200))
    await delivered(answers, Clock())
    assert [headers["webhook-id"] for _, _, headers in answers.posts] == ["run", "run"]
    url, content, headers = answers.posts[0]
    assert url == URL
    assert headers == {"content-type": "application/json", **signed(SECRET, "run", 1700000000, content)}


async def test_the_log_does_not_show_the_signature_of_an_address() -> None:
    structlog.reset_defaults()
    with capture_logs() as said, pytest.raises(GivenUp):
        await delivered(Answers(answer(404)), Clock())
    assert [one["to"] for one in said] == ["http://n8n.example/webhook"]
