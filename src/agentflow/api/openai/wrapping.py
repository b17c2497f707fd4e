"""What front ends wrap around a user's message: passages of documents with orders, lists of files. Pure."""

import re
from dataclasses import dataclass

_DOCUMENTS = re.compile(r"\s*#{1,6}\s*task\b.*?<context>.*?</context>(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
_QUERY = re.compile(r"<user_query>(?P<own>.*?)</user_query>", re.DOTALL | re.IGNORECASE)
_FILES = re.compile(r"\s*<attached_files>.*?</attached_files>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Wrapped:
    """`own` is what the user said; `around` is what the front end has put around it, for the model alone."""

    own: str
    around: str


def unwrapped(text: str) -> Wrapped:
    """A message in its two parts; one that holds nothing of the user's is the user's whole."""
    own = _own(text).strip()
    if not own or own == text.strip():
        return Wrapped(text, "")
    return Wrapped(own, text[: text.rindex(own)].strip() + text[text.rindex(own) + len(own) :].rstrip())


def _own(text: str) -> str:
    documents = _DOCUMENTS.fullmatch(text)
    if documents is not None:
        query = _QUERY.search(text)
        text = query["own"] if query is not None else documents["rest"]
    files = _FILES.match(text)
    return text if files is None else text[files.end() :]
