"""Which thread a stateless client means: named in a header or the body, or told from its transcript."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from uuid import UUID

from agentflow.api.keys import USER
from agentflow.api.openai.order import Order
from agentflow.api.openai.reconcile import Verdict, reconcile
from agentflow.api.openai.transcripts import Pair, Transcript
from agentflow.errors import BadInput, NotFound
from agentflow.prompt import ChatMessage
from agentflow.protocols import Owner
from agentflow.records.conversations import Conversations, Exchange
from agentflow.retrieval.exchange import plain
from agentflow.settings.schema import OpenAISettings

MEMORY = "x-agentflow-memory"
PARTIAL = ("x-thread-id",)
"""Headers of clients that may send only what is new; the others' clients send all they have."""
CHARS = 512


@dataclass(frozen=True)
class Hint:
    """A client's name for its conversation. `whole`: it sends the whole transcript each time."""

    name: str
    whole: bool


@dataclass(frozen=True)
class Placed:
    """Where a message goes; without a thread a new one begins. A step gives `sent` its message."""

    thread_id: str | None
    memory: bool
    sent: Transcript


def hinted(order: Order, headers: Mapping[str, str], settings: OpenAISettings) -> Hint | None:
    """The first of: a header that names a conversation, `metadata.thread_id`, `conversation`."""
    found = _header(headers, settings.thread_headers)
    if found is not None:
        return _hint(found[1], found[0] not in PARTIAL)
    return None if not order.thread else _hint(order.thread, whole=False)


def spoken_for(order: Order, headers: Mapping[str, str], settings: OpenAISettings) -> str | None:
    """The user that a client speaks for: in the body, else in a header of a front end with several users."""
    found = None if USER in headers else _header(headers, settings.user_headers)
    return order.user or (None if found is None else found[1][:CHARS])


def _header(headers: Mapping[str, str], patterns: Sequence[str]) -> tuple[str, str] | None:
    """Name and value of the first header that one of the patterns knows."""
    for pattern in patterns:
        for name, value in headers.items():
            if value.strip() and re.fullmatch(pattern, name.lower()):
                return name.lower(), value.strip()
    return None


def remembered(order: Order, headers: Mapping[str, str], settings: OpenAISettings, hint: Hint | None) -> bool:
    """Whether memory takes part: as the client says, else unless it has its own and names no thread."""
    said = headers.get(MEMORY, "").strip().lower()
    if said in ("on", "off"):
        return said == "on"
    agent = headers.get("user-agent", "").lower()
    own = any(one.lower() in agent for one in settings.own_memory)
    return hint is not None or order.previous is not None or not own


async def placed(
    order: Order,
    headers: Mapping[str, str],
    owner: Owner,
    *,
    conversations: Conversations,
    settings: OpenAISettings,
) -> Placed:
    """The thread, brought to where the client's transcript is. Raises NotFound, BadInput and DatabaseDown."""
    hint = hinted(order, headers, settings)
    memory = remembered(order, headers, settings, hint)
    desk = _Desk(conversations, owner, order.sent)
    if order.previous is not None:
        return await desk.after(order.previous, memory=memory)
    if not order.sent.text.strip():
        raise BadInput("There is no message of a user to answer.", field="messages")
    if order.sent.answered:
        return Placed(None, memory=False, sent=order.sent)
    if hint is not None:
        return Placed(await desk.named(hint), memory, order.sent)
    thread = await desk.recognised() if memory else None
    return Placed(thread, memory, order.sent)


@dataclass(frozen=True)
class _Desk:
    """One request's way to its thread."""

    conversations: Conversations
    owner: Owner
    sent: Transcript

    async def named(self, hint: Hint) -> str:
        """The thread of a name, as the client sees it now."""
        ref = sha256(f"{self.owner.tenant}\x1f{self.owner.user}\x1f{hint.name}".encode()).hexdigest()
        wish = _uuid(hint.name)
        thread = await self.conversations.known(ref, wish, self.owner)
        if thread is None:
            turns = _exchanges(self.sent.turns())
            return await self.conversations.begin(ref, turns, self.owner, origin=None, wish=wish)
        stored = await self.conversations.turns(thread, self.owner)
        verdict = reconcile(_plain(self.sent.turns()), _plain(stored), whole=hint.whole)
        return await self._taken(thread, stored, verdict, ref)

    async def recognised(self) -> str | None:
        """The thread whose last turns are the transcript's; of several the one that agrees most."""
        said = self.sent.turns()
        if not said:
            return None
        found: list[tuple[int, bool, str, list[Exchange], Verdict]] = []
        for thread in await self.conversations.likely(Exchange(*said[-1]), self.owner):
            stored = await self.conversations.turns(thread, self.owner)
            verdict = reconcile(_plain(said), _plain(stored), whole=True)
            found.append((verdict.known, verdict.kind == "append", thread, stored, verdict))
        if not found:
            return await self.conversations.begin(None, _exchanges(said), self.owner, origin=None, wish=None)
        _, _, thread, stored, verdict = max(found, key=lambda one: one[:2])
        return await self._taken(thread, stored, verdict, None)

    async def after(self, run_id: str, *, memory: bool) -> Placed:
        """The thread as it was after a response; results of its tool calls go on with it."""
        step = await self.conversations.step(run_id, self.owner)
        if step is None:
            raise NotFound(f"There is no response {run_id}.", field="previous_response_id", value=run_id)
        sent = self.sent
        if not sent.text.strip() and step.open:
            asked: ChatMessage = {"role": "assistant", "content": "", "tool_calls": step.calls}
            sent = replace(sent, text=step.asked, after=[*step.before, asked, *sent.after])
        if not sent.text.strip():
            raise BadInput("There is no message of a user to answer.", field="input")
        stored = await self.conversations.turns(step.thread_id, self.owner)
        kept = await self.conversations.turns(step.thread_id, self.owner, upto=run_id)
        verdict = Verdict("append" if len(kept) == len(stored) else "branch", len(kept), len(sent.turns()))
        thread = await self._taken(step.thread_id, stored, verdict, None)
        return Placed(thread, memory, sent)

    async def _taken(self, thread: str, stored: Sequence[Exchange], verdict: Verdict, ref: str | None) -> str:
        missing = _exchanges(self.sent.turns()[verdict.known :])
        if verdict.kind == "branch":
            turns = [*stored[: verdict.keep], *missing]
            replaced = self._replaced(stored[verdict.keep :], named=ref is not None)
            return await self.conversations.begin(
                ref, turns, self.owner, origin=thread, wish=None, replaced=replaced
            )
        await self.conversations.add(thread, missing, self.owner)
        return thread

    def _replaced(self, beyond: Sequence[Exchange], *, named: bool) -> int:
        """How many of a thread's last turns a branch takes the place of.

        All that it does not go on from, where the client names its chat. A transcript may as well be that of
        another chat with the same beginning, unless its message is the one that the thread's last turn answers.
        """
        again = len(beyond) == 1 and plain(beyond[0].asked) == plain(self.sent.text)
        return len(beyond) if named or again else 0


def _hint(name: str, whole: bool) -> Hint:
    if len(name) > CHARS:
        raise BadInput(
            f"The conversation's name has {len(name)} characters; {CHARS} are read.", field="thread_id"
        )
    return Hint(name, whole)


def _uuid(name: str) -> str | None:
    """A name that could be the id of one of our threads."""
    try:
        return str(UUID(name))
    except ValueError:
        return None


def _exchanges(pairs: Sequence[Pair]) -> list[Exchange]:
    return [Exchange(*pair) for pair in pairs]


def _plain(pairs: Sequence[Pair]) -> list[Pair]:
    return [(plain(asked), plain(answer)) for asked, answer in pairs]
