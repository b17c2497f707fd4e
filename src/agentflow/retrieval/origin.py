"""What is never remembered, told from the text alone.

What recall put into a prompt, system prompts and failed turns never come this far: only the caller's raw text
and the model's raw answer do, and only when the turn ends well.
"""

import re

# Chat front ends ask the same model for titles, tags and follow-ups: a task heading, then the quoted chat.
_TASK = re.compile(
    r"\s*(#{1,6}\s*task\b|(generate|create|suggest|provide|write|summari[sz]e|determine|analy[sz]e)\b)",
    re.IGNORECASE,
)
_HEADING = re.compile(r"\s*#{1,6}\s*task\b", re.IGNORECASE)
_CHORE = re.compile(
    r"\b(title|tags?|follow[- ]?ups?|emoji|search quer(y|ies)|autocomplet\w+|image prompt)\b", re.IGNORECASE
)
_TRANSCRIPT = re.compile(
    r"<chat_history>|^#{1,6}\s*chat history|^\W{0,3}(user|human|assistant|ai)\W{0,2}:",
    re.IGNORECASE | re.MULTILINE,
)
_THOUGHTS = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_OPENING = 400


def is_chore(text: str) -> bool:
    """Whether a front end sent this on its own: it opens with a task and quotes a conversation."""
    if not _TASK.match(text) or not _TRANSCRIPT.search(text):
        return False
    return bool(_HEADING.match(text) or _CHORE.search(text[:_OPENING]))


def spoken(answer: str) -> str:
    """An answer without the model's thoughts."""
    return _THOUGHTS.sub("", answer).strip()
