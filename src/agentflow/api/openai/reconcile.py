"""A client's transcript against the stored thread: does the next message go on, or begin another branch? Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from agentflow.api.openai.transcripts import Pair


@dataclass(frozen=True)
class Verdict:
    """`append` goes on in the thread; `branch` takes its first `keep` turns into a thread of its own.

    Of the client's turns the first `known` are there; the rest were made elsewhere, or edited there.
    """

    kind: Literal["append", "branch"]
    keep: int
    known: int = 0


def reconcile(said: Sequence[Pair], stored: Sequence[Pair], *, whole: bool) -> Verdict:
    """Where the client's turns lie in the stored ones, both in their plain form.

    The longest run of equal turns wins, from any place in the thread, since clients cut off the beginning of long
    chats; among equals the one that reaches the thread's end. What the client has beyond it is missing; what the
    thread has beyond it makes a branch: the message was edited, or its answer is asked for again. `whole` says that
    the client always sends all it has, so that nothing said means to begin again.
    """
    if not stored:
        return Verdict("append", 0)
    if not said:
        return Verdict("branch", 0) if whole else Verdict("append", len(stored))
    start, length = _aligned(said, stored)
    if length == 0:
        return Verdict("branch", 0)
    keep = start + length
    return Verdict("append" if keep == len(stored) else "branch", keep, length)


def _aligned(said: Sequence[Pair], stored: Sequence[Pair]) -> tuple[int, int]:
    """Where the client's first turns stand among the stored, and how many in a row are equal."""
    found = ((start, _equal(said, stored[start:])) for start in range(len(stored)))
    return max(found, key=lambda one: (one[1], one[0] + one[1] == len(stored), -one[0]))


def _equal(said: Sequence[Pair], stored: Sequence[Pair]) -> int:
    pairs = zip(said, stored, strict=False)
    return sum(1 for _ in takewhile(lambda pair: same(*pair), pairs))


def same(shown: Pair, stored: Pair) -> bool:
    """Whether the client's turn is the stored one. Front ends wrap a message, in documents or the date, only while
    it is the last: what they show later is a part of what was stored.
    """
    return shown[1] == stored[1] and shown[0] in stored[0]
