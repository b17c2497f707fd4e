"""What a log line must not hold: secrets ever, what people said unless the settings ask for it."""

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
SECRETS = frozenset(
    {
        "authorization",
        "api_key",
        "x_api_key",
        "key",
        "token",
        "password",
        "secret",
        "dsn",
        "cookie",
        "credential",
    }
)
SAID = frozenset(
    {
        "text",
        "input",
        "output",
        "content",
        "answer",
        "messages",
        "prompt",
        "memories",
        "history",
        "query",
    }
)
# Our keys, tokens, what follows Bearer, and passwords within addresses.
_SHAPES = (
    (re.compile(r"\baf_[A-Za-z0-9_-]{20,}"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"(?<=://)([^\s/:@]+):[^\s/@]+@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"\b(password|api_key|apikey)=([^\s&'\"]+)", re.IGNORECASE), rf"\1={HIDDEN}"),
)


class Redactor:
    """A structlog processor, the last before the renderer. `content`: what people said may be logged."""

    def __init__(self, *, content: bool = False) -> None:
        self._closed = SECRETS if content else SECRETS | SAID

    def __call__(self, _logger: Any, _method: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The event with what is not for logs taken out."""
        return {name: self._shown(name, value) for name, value in event.items()}

    def _shown(self, name: str, value: Any) -> Any:
        if name.lower().replace("-", "_") in self._closed and value is not None:
            return HIDDEN if not isinstance(value, str | bytes | list | tuple) else f"{HIDDEN} ({len(value)})"
        if isinstance(value, str):
            return masked(value)
        if isinstance(value, Mapping):
            return {inner: self._shown(str(inner), one) for inner, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._shown("", one) for one in value]
        return value


def masked(text: str) -> str:
    """A text without what has the shape of a secret."""
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text
