"""Pure: what happens to a thread's open runs when another one comes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

How = Literal["interrupt", "rollback"]


@dataclass(frozen=True)
class Decision:
    """`refused`: the new run is not accepted. `stopped`: runs that must end first, in this way."""

    refused: bool = False
    stopped: tuple[str, ...] = ()
    how: How = "interrupt"


def decide(open_runs: Sequence[str], strategy: str) -> Decision:
    """The decision over the ids of a thread's open runs, in their order; strategies are the protocol's.

    A new run waits for whatever is open, stopped or not, so that a thread's runs never overlap.
    """
    if not open_runs or strategy == "enqueue":
        return Decision()
    if strategy == "reject":
        return Decision(refused=True)
    return Decision(stopped=tuple(open_runs), how="rollback" if strategy == "rollback" else "interrupt")
