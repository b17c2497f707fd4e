"""One generation as the engine gets it: what the role says, what memory gave, and what a client sent beside it."""

from collections.abc import Sequence
from dataclasses import replace

from agentflow.prompt import ChatMessage, Quote, chat_messages, without_tools
from agentflow.protocols import Capabilities, Prompt
from agentflow.settings.schema import Role
from agentflow.turn import Given, Recollection

LONGEST = 4096
"""Tokens of an answer, at most, whatever a client asks for."""


def brief(
    text: str,
    *,
    role: Role,
    able: Capabilities,
    given: Given | None = None,
    history: Sequence[ChatMessage] = (),
    memories: Sequence[Recollection] = (),
) -> Prompt:
    """The prompt for one message.

    A client's transcript replaces our `history`, its system prompt follows the role's. Tools that the engine does
    not know are left out, and earlier calls are told in words.
    """
    sent: Given = given or {}
    messages = chat_messages(
        system="\n\n".join(part for part in (role.system_prompt, sent.get("system", "")) if part),
        quotes=[_quote(one) for one in by_session(memories)],
        history=sent.get("history") or history,
        text=text,
        after=sent.get("after", []),
    )
    prompt = sampled(role, sent)
    if not able.tools:
        return replace(prompt, messages=without_tools(messages))
    return replace(
        prompt, messages=messages, tools=sent.get("tools", []), tool_choice=sent.get("tool_choice")
    )


def sampled(role: Role, sent: Given) -> Prompt:
    """The role's sampling; a client may ask for anything but longer answers."""
    ours, theirs = role.generation, sent.get("sampling", {})
    return Prompt(
        messages=(),
        max_tokens=min(theirs.get("max_tokens", ours.max_tokens), ours.max_tokens, LONGEST),
        temperature=theirs.get("temperature", ours.temperature),
        top_p=theirs.get("top_p", ours.top_p),
        seed=theirs.get("seed", ours.seed),
        stop=(*ours.stop, *theirs.get("stop", ())),
        response_format=sent.get("response_format"),
    )


def by_session(memories: Sequence[Recollection]) -> list[Recollection]:
    """Session by session, and in time within each: the order in which things were said, not how well they fit."""
    begun: dict[object, str] = {}
    for one in memories:
        key = _session(one)
        begun[key] = min(begun.get(key, one["said_at"]), one["said_at"])
    return sorted(
        memories, key=lambda one: (begun[_session(one)], str(_session(one)), one["said_at"], one["id"])
    )


def _session(memory: Recollection) -> object:
    return memory.get("session", memory["thread_id"])


def _quote(memory: Recollection) -> Quote:
    return {"speaker": _source(memory), "day": memory["said_at"][:10], "content": memory["content"]}


def _source(memory: Recollection) -> str:
    """Who said it; of a document where it stands."""
    cited = memory.get("cited", {})
    places = [f"{word} {cited[key]}" for key, word in (("page", "p."), ("line", "line")) if cited.get(key)]
    return ", ".join([memory["speaker"], *places])
