"""What a look has found."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "mistake"]


@dataclass(frozen=True)
class Row:
    """One thing that was looked at; `remedy` where something is to be done."""

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""
