"""Where adapters are, and how soon they answer."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Outlook:
    """How soon a role's adapter answers, and what the role says about it.

    `tier` is where it is now, `eta` the expected seconds until it answers, `budget` what is simply waited for.
    `do` "wait": hold it. "base": answer without it. "fallback": answer as `role`. "refuse": ask again in `eta`.
    """

    tier: str
    eta: float = 0.0
    budget: float = 0.0
    do: Literal["wait", "base", "fallback", "refuse"] = "wait"
    role: str | None = None

    @property
    def is_cold(self) -> bool:
        return self.eta > self.budget


class Keeper(Protocol):
    """Sole owner of where adapters are."""

    def warm(self, role: str) -> None:
        """Start bringing the role's adapter in, for a turn that will hold it; returns at once."""
        ...

    def foresee(self, role: str) -> None:
        """The role may be next: bring its adapter nearer if nothing else needs the way."""
        ...

    def resume(self, role: str) -> None:
        """A conversation with this role goes on: bring its adapter nearer."""
        ...

    def tier(self, role: str) -> str:
        """Where the role's adapter is now: "vram", "ram", "disk", "remote", or "base" without an adapter."""
        ...

    def identity(self, role: str) -> str | None:
        """`role@<first 12 of sha256>`; None for a role without an adapter, or one that was never fetched."""
        ...

    def eta(self, role: str) -> float:
        """Expected seconds until the role's adapter answers; 0 for one that does, or a role without."""
        ...

    def outlook(self, role: str, *, waited: float = 0.0) -> Outlook:
        """What a turn is to do about a cold adapter; again after `waited` seconds in vain. Counted per turn."""
        ...

    def hold(self, role: str, *, name: str | None = None) -> AbstractAsyncContextManager[str | None]:
        """Wait until the adapter answers and keep it so; yields its engine name.

        `name` is the identity that the turn has chosen: it is held even if the role has another by now. Raises
        ColdAdapter when the role's patience ends, NoRoom, or what else is wrong with the adapter.
        """
        ...
