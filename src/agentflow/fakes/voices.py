"""What fake engines say: recognisable, deterministic, and proof of what the prompt held."""

import json
import re
from collections.abc import Sequence

from agentflow.prompt import CLOSE, OPEN, ChatMessage

_SECTION = re.compile(f"{re.escape(OPEN)}\n(.*?){re.escape(CLOSE)}\n?", re.DOTALL)
_QUOTE = re.compile(r"- .*?\): (\".*\")")
_TOKEN = re.compile(r"\S+\s*|\s+")


def answer(voice: str, messages: Sequence[ChatMessage]) -> str:
    """`[voice] You said: <question>`, then `I remember: <first quote>` if the prompt quotes memory, then
    `The tool said: <result>` if it ends with one.

    `voice` is an adapter's name, of which the part before "@" is heard, or "base".
    """
    asked = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    section = _SECTION.search(asked)
    quote = _QUOTE.search(section[1]) if section else None
    memory = f" I remember: {json.loads(quote[1])}" if quote else ""
    tool = f" The tool said: {messages[-1]['content']}" if messages and messages[-1]["role"] == "tool" else ""
    return f"[{voice.partition('@')[0]}] You said: {question(asked)}{memory}{tool}"


def question(text: str) -> str:
    """A prompt's message without what memory put before it."""
    return _SECTION.sub("", text).strip()


def tokens(text: str) -> list[str]:
    """Words with the space behind them; joined they are the text."""
    return _TOKEN.findall(text)


def clipped(text: str, *, max_tokens: int, stop: Sequence[str]) -> tuple[list[str], str]:
    """Tokens of the text up to the first stop string or the limit, and "stop" or "length"."""
    cuts = [text.index(word) for word in stop if word and word in text]
    words = tokens(text[: min(cuts)] if cuts else text)
    return (words[:max_tokens], "length") if len(words) > max_tokens else (words, "stop")
