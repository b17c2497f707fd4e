"""An exchange as clients and the ledger both see it: a message and its answer, however they are laid out."""

from hashlib import sha256

from agentflow.retrieval.origin import spoken


def plain(text: str) -> str:
    """Without the model's thoughts, and with single spaces."""
    return " ".join(spoken(text).split())


def exchange(asked: str, answer: str) -> bytes:
    """The same for the same message and answer."""
    return sha256("\x1f".join((plain(asked), plain(answer))).encode()).digest()[:16]
