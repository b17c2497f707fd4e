"""Which calls a chat front end makes on its own: titles, tags, follow-ups, search queries, completions. Pure.

Such a call has a task instead of a message. Two independent signs are needed, and one of them is the task, since a
false alarm costs the user a memory: many people's own messages begin with a heading or ask for a title.
"""

import re

from agentflow.api.openai.transcripts import Transcript
from agentflow.retrieval.origin import is_chore

HEADER = "x-agentflow-kind"
_WORK = r"(title|tags?|follow[- ]?up|emoji|search quer|summar|autocomplet|image prompt|question suggestion)"
_SYSTEM = re.compile(
    rf"\b(you are an? [\w -]{{0,40}}{_WORK}|generate an? [\w -]{{0,40}}{_WORK}|{_WORK}[\w -]* generat)",
    re.IGNORECASE,
)
_USER = re.compile(
    rf"\s*(#{{1,6}}\s*task\b|(please )?(generate|create|suggest|provide|write|make|summari[sz]e)\b.{{0,80}}?{_WORK})",
    re.IGNORECASE | re.DOTALL,
)
_OF_A_CHAT = re.compile(r"\b(conversation|chat|dialog(ue)?|transcript|messages?)\b", re.IGNORECASE)
_ORDER = re.compile(
    r"\b(json|one line|single line|only (return|reply|respond|output|the)|(return|reply|respond|output) only"
    r"|nothing else|no explanation|without quotes)\b",
    re.IGNORECASE,
)
_OPENING = 600


def is_utility(sent: Transcript, *, stream: bool, tools: bool) -> bool:
    """Whether nobody said this: a task about a conversation, with its transcript or the form of the answer."""
    if tools or sent.after:
        return False
    if is_chore(sent.text):
        return True
    if _SYSTEM.search(sent.system[:_OPENING]) and _titled(sent):
        return True
    opening = sent.text[:_OPENING]
    alone = not stream and not sent.before
    return bool(alone and _USER.match(opening) and _OF_A_CHAT.search(opening) and _ORDER.search(sent.text))


def _titled(sent: Transcript) -> bool:
    """Whether a user's message before or in the last one gives the task too."""
    asked = [one["content"] for one in sent.before if one["role"] == "user"] + [sent.text]
    return any(_USER.match(one) or is_chore(one) for one in asked)
