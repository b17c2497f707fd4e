"""Which calls a chat front end makes on its own: titles, tags, follow-ups, search queries, summaries. Pure.

Such a call has a task instead of a message: work on *the conversation*. Two independent signs are needed, and one of
them is the task, since a false alarm costs the user a memory: many people's own messages begin with a heading, ask for
a title or a summary, or quote a chat. The other sign is the form that the answer is given (JSON, so many words, nothing
else), or a transcript in place of a message.
"""

import re

from agentflow.api.openai.transcripts import Transcript
from agentflow.retrieval.origin import is_chore

HEADER = "x-agentflow-kind"
_OPENING = 600
_MAKE = (
    r"\b(generate|create|suggest|provide|write|make|give|extract|summari[sz]e|reply|respond|name|produce)\b"
)
_WORK = r"\b(titles?\b|name\b|tags?\b|follow[- ]?up|emoji|search quer|autocomplet|image prompt|topics?\b)\w*"
_CHAT = (
    r"\b(the|this|our|an?|following|above|given|short|user's)\s(conversation|chat|dialog(ue)?|discussion|thread|story)"
    r"(?=\s*[^\w\s'\"]|\s*$|\s(and|in|with|without|using|based|by|into|that|which|so|above|below|title|name|an?)\b)"
)
_NEAR = r"[^.!?\n]{0,100}?"
_TASK = re.compile(
    rf"{_MAKE}{_NEAR}{_WORK}{_NEAR}{_CHAT}"
    rf"|\b(give|summari[sz]e|name|condense) {_CHAT}{_NEAR}{_WORK}"
    rf"|^\W*(name|analy[sz]e) {_CHAT}"
    r"|\b(facts|events) in the (story|chat|conversation) so far"
    r"|\b(chat|conversation|thread) (titl|summar|nam)\w* (assistant|generator|expert|writer)"
    r"|\b(chat|conversation) summari[sz]er"
    r"|^\W*summari[sz]e in an? \d+-word title"
    r"|(标题|主题|总结|概括)[^。\n]{0,40}(对话|会话|聊天)|(对话|会话|聊天|这句话)[^。\n]{0,40}(标题|主题|总结|概括)",
    re.IGNORECASE,
)
_COUNT = r"(\d+|four|five|six|ten)"
_FORM = re.compile(
    rf"\bjson\b|\b(one|single) line\b|\b{_COUNT}([- ](to|or|{_COUNT}))*[- ](words?|characters)\b"
    r"|\b(only|just) (return|reply|respond|output|give|provide|the)\b"
    r"|\b(return|reply|respond|output|give|reply with)\b[^.\n]{0,30}? only\b"
    r"|\bnothing (else|but)\b"
    r"|\b(no|without|omitting|do not use)( \w+)? (explanation|quot|punctuation|lead-in|preamble|text)"
    r"|不要|不需要|直接返回|字以内",
    re.IGNORECASE,
)
_QUOTED = re.compile(
    r"\s*(query:\s*)?(history:\s*)?(<(chat_history|conversation|messages)>|\W{0,3}(user|human)\W{0,2}:|\[\s*\{\s*\"role\")",
    re.IGNORECASE,
)
_ABOUT = re.compile(rf"{_WORK}|\bsummar|\byour task is to\b|标题|主题|总结|概括", re.IGNORECASE)
_EMOJI = re.compile(r"your task is to\b[^.]{0,100}\bemoji\b|\bonly an? (single )?emoji\b", re.IGNORECASE)


def is_utility(sent: Transcript, *, stream: bool, tools: bool) -> bool:
    """Whether nobody said this: a task about the conversation, with its transcript or the form of the answer.

    `tools` that may be used at will are a person's. Who streams is more likely one, and must give the form twice.
    """
    if tools:
        return False
    if sent.closing:
        return _ordered(sent.closing, signs=1)
    if sent.after:
        return False
    return is_chore(sent.text) or _ordered(sent.text, signs=1 + stream) or _by_system(sent)


def _ordered(text: str, *, signs: int) -> bool:
    """Whether a text opens with a task about a conversation and says in so many ways what the answer looks like."""
    opening = text[:_OPENING]
    if _EMOJI.search(opening):
        return '"""' in text
    return bool(_TASK.search(opening)) and len({one.group() for one in _FORM.finditer(text)}) >= signs


def _by_system(sent: Transcript) -> bool:
    """Whether the task is the system's, and what the user seems to say is what it is about."""
    opening = sent.system[:_OPENING]
    if sent.before:
        return bool(_ABOUT.search(opening)) and any(_titled(one["content"]) for one in sent.before)
    if _ABOUT.search(opening) and (_QUOTED.match(sent.text) or _titled(sent.text)):
        return True
    return bool(_EMOJI.search(opening)) or _ordered(
        sent.system, signs=2 if len(sent.system) > _OPENING else 1
    )


def _titled(text: str) -> bool:
    """Whether a message is the bare task: its object comes in the next one."""
    return is_chore(text) or bool(
        _TASK.search(text[:_OPENING]) and len(text) < _OPENING and text.rstrip()[-1:] == ":"
    )
