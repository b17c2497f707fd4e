"""What callers have used up."""

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Allowance:
    """How much a caller may: `requests` at once, `hits` in `seconds`; None: any number."""

    requests: int | None
    hits: int | None
    seconds: int = 60


@dataclass(frozen=True)
class Refusal:
    """Which limit is reached, and after how many seconds it is worth asking again, at least one."""

    limit: Literal["requests", "rate"]
    wait: float


class Spending(Protocol):
    """What callers have used up, counted by all processes together. What is refused uses up nothing."""

    async def begin(self, caller: str, allowed: Allowance) -> Refusal | None:
        """A request begins, unless it is refused; `end` follows if it was not."""
        ...

    def end(self, caller: str) -> None:
        """A request that had begun is over."""
        ...
