"""Whose memories a search sees."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentflow.turn import Recollection


@dataclass(frozen=True)
class Owner:
    """Whose rows a statement may see: those of a tenant's user; without `user`, all of the tenant's."""

    tenant: int
    user: str | None = None


@dataclass(frozen=True)
class Scope:
    """One searchable set: a collection of a tenant, of one user (None: everybody's).

    Documents may be attached to a role or to a single thread: then they are a set of their own.
    """

    tenant: int
    collection: str
    user: str | None
    role: str | None = None
    thread: str | None = None

    @property
    def owner(self) -> Owner:
        return Owner(self.tenant, self.user)


def own_scopes(owner: Owner, collections: Iterable[str], *, private_to: str | None = None) -> list[Scope]:
    """What a user has said, by collection: to all roles, or to the one that keeps it private."""
    return [Scope(owner.tenant, name, owner.user, private_to) for name in dict.fromkeys(collections)]


def searched_scopes(
    owner: Owner, reads: Iterable[str], beside: Iterable[Scope], *, private_to: str | None = None
) -> list[Scope]:
    """What a turn may look at: the user's own sets and those beside; a private role sees nothing said to others."""
    own = own_scopes(owner, reads, private_to=private_to)
    shared = set() if private_to is None else set(own_scopes(owner, [one.collection for one in own]))
    return [one for one in dict.fromkeys([*own, *beside]) if one not in shared]


@dataclass(frozen=True)
class Beside:
    """What every question of a turn may use: sets of documents that are at hand, and pinned memories."""

    scopes: Sequence[Scope] = ()
    pinned: Sequence[Recollection] = ()


DOCUMENTS = "documents"
"""The collection that every role reads: what was added for everybody, a user, a role or a thread."""
