"""Our own graph as chat clients see it: `messages` in, `messages` in every state, though texts are in the ledger."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from agentflow.errors import BadInput
from agentflow.protocols import Owner
from agentflow.records.branches import Threaded
from agentflow.records.protocol.threads import said_by
from agentflow.runs.branches import Branches, Fork, Told
from agentflow.turn import Json

HIDDEN = (
    "lease", "tenant", "attempt", "user", "context", "text", "answer", "messages", "memories", "wanted_role", "given",
)  # fmt: skip
"""Keys of a turn that are no state of the conversation."""
ANSWER: Json = {"additional_kwargs": {}, "type": "ai", "name": None}
Said = Callable[..., Awaitable[dict[str, list[Json]]]]


@dataclass(frozen=True)
class Asked:
    """A question's checkpoint, as clients know it, and the one that it follows."""

    checkpoint_id: str
    follows: str

    def placed(self, chunk: Json) -> Json | None:
        """A checkpoint of the turn at its place in the tree that clients see; None: it is kept nowhere."""
        if not chunk["next"]:
            return {**chunk, "parent_config": _at(chunk["config"], self.checkpoint_id)}
        if chunk["metadata"].get("source") != "input":
            return None
        at, before = _at(chunk["config"], self.checkpoint_id), _at(chunk["config"], self.follows)
        return {**chunk, "config": at, "parent_config": before}


@dataclass(frozen=True)
class Conversation:
    """The messages of threads; `said` and `said_ever` read them from the ledger."""

    said: Said
    said_ever: Callable[[Owner, str], Awaitable[list[tuple[int, Json]]]]
    threaded: Threaded

    async def branches(self, owner: Owner, thread_id: str) -> Branches:
        """The thread's turns and checkpoints, and how they follow each other."""
        rows = await self.threaded.turns(owner, thread_id)
        checkpoints = await self.threaded.checkpoints(owner, thread_id)
        turns = {
            seq: Told(str(run), seq, at.isoformat(), follows, again, shown=seen, answered=done)
            for seq, run, at, follows, again, seen, done in rows
        }
        return Branches(thread_id, turns, checkpoints)

    async def again(
        self, owner: Owner, thread_id: str, checkpoint_id: str | None
    ) -> tuple[Fork, str, Json, str | None]:
        """A question to be answered once more: where, its text, the message's own data, the role wanted.

        Raises BadInput.
        """
        fork = (await self.branches(owner, thread_id)).fork(checkpoint_id, asks=False)
        found = await self.threaded.question(owner, thread_id, fork.again or 0)
        if found is None:
            raise BadInput("The message to answer again is gone; send input.messages.", field="input")
        return fork, *found

    async def forked(self, owner: Owner, thread_id: str, checkpoint_id: str) -> Fork:
        """Where a message behind a checkpoint goes on. Raises BadInput."""
        return (await self.branches(owner, thread_id)).fork(checkpoint_id, asks=True)

    async def begun(self, owner: Owner, thread_id: str, run_id: str) -> list[Json]:
        """The messages up to a turn's own question."""
        return (await self.said(owner, [thread_id], run_id=run_id))[thread_id]

    async def asked_at(self, owner: Owner, thread_id: str, run_id: str) -> Asked:
        """Where clients find a turn's question."""
        branches = await self.branches(owner, thread_id)
        seq = branches.asked_at(branches.question(run_id) or 0)
        asked = branches.turns.get(seq)
        if asked is None:
            return Asked(run_id, thread_id)
        return Asked(asked.run_id, branches.last_checkpoint(branches.before(seq)))

    async def fill_threads(self, owner: Owner, threads: Sequence[Json]) -> None:
        """Give every thread's values its messages."""
        found = await self.said(owner, [one["thread_id"] for one in threads])
        for one in threads:
            if found[one["thread_id"]] or one["values"]:
                one["values"] = {**shown(one["values"] or {}), "messages": found[one["thread_id"]]}


def _at(config: Json, checkpoint_id: str) -> Json:
    return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint_id}}


def shown(values: Json) -> Json:
    """A turn's values without what only the graph needs."""
    return {key: value for key, value in values.items() if key not in HIDDEN}


def answer_id(run_id: str) -> str:
    """The id of a turn's answer, the same while it is streamed and once it is stored."""
    return str(uuid5(UUID(run_id), "assistant"))


def answered(values: Json, said: Sequence[Json], run_id: str) -> Json:
    """A turn's values with the conversation so far, and the answer once there is one."""
    messages = list(said)
    if values.get("answer"):
        tokens = values["usage"]
        who = said_by(values["role"], values["adapter"], tokens["prompt_tokens"], tokens["completion_tokens"])
        messages.append({**ANSWER, **who, "content": values["answer"], "id": answer_id(run_id)})
    return {**shown(values), "messages": messages}


def said_last(given: Any) -> tuple[str, Json, str | None]:
    """(text, the message's own data, role wanted) of an input: `messages`, or `text` as the graph takes it.

    Raises BadInput.
    """
    if not isinstance(given, dict):
        raise BadInput('input is not an object with messages; send {"messages": [...]}.', field="input")
    if isinstance(given.get("text"), str):
        return given["text"], {}, _role(given)
    messages = given.get("messages")
    several = messages if isinstance(messages, list) else [messages]
    last = next((one for one in reversed(several) if _is_human(one)), None)
    if last is None:
        raise BadInput(
            "input.messages holds no message of a user; the last one is answered.", field="input.messages"
        )
    if isinstance(last, str):
        return last, {}, _role(given)
    if isinstance(last, list):
        return _text(last[1]), {}, _role(given)
    named = last.get("id")
    return (
        _text(last.get("content")),
        {"client_id": named} if isinstance(named, str) and named else {},
        _role(given),
    )


def _is_human(one: Any) -> bool:
    if isinstance(one, dict):
        return (one.get("role") or one.get("type")) in ("user", "human")
    if isinstance(one, list):
        return len(one) == 2 and one[0] in ("user", "human")
    return isinstance(one, str)


def _text(content: Any) -> str:
    """The words of a message: a string, or its text parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [one if isinstance(one, str) else one.get("text") for one in parts if isinstance(one, str | dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _role(given: Json) -> str | None:
    wanted = given.get("wanted_role") or given.get("role")
    return wanted if isinstance(wanted, str) and wanted else None
