"""When the subgraphs of a run begin and end, read from what it streams. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentflow.turn import Json

Told = tuple[str, list[str], Any]
"""Method, namespace and data of an event."""


@dataclass
class Subgraphs:
    """A run's subgraphs by namespace, and whether each is still at work.

    One begins with its first event, those around it before it; it ends with the task that it runs in, whose name and
    id are the last segment of its namespace.
    """

    known: dict[tuple[str, ...], bool] = field(default_factory=dict)

    def heard(self, mode: str, names: Sequence[str], data: Any) -> Iterator[Told]:
        """The beginnings and ends that an event of the run tells of."""
        for depth in range(1, len(names) + 1):
            space = tuple(names[:depth])
            if space not in self.known:
                self.known[space] = True
                yield _lifecycle(space, "started")
        if mode == "tasks" and isinstance(data, dict) and "interrupts" in data:
            yield from self.left((*names, f"{data.get('name')}:{data.get('id')}"), _come_to(data))

    def left(self, space: tuple[str, ...], how: str) -> Iterator[Told]:
        """All within a namespace have ended, the inner ones first."""
        for one in [one for one, going in self.known.items() if going and one[: len(space)] == space][::-1]:
            self.known[one] = False
            yield _lifecycle(one, how)


def _lifecycle(space: Sequence[str], event: str) -> Told:
    return "lifecycle", list(space), {"event": event, "graph_name": space[-1].split(":")[0]}


def _come_to(task: Json) -> str:
    """What the end of a task means for the subgraph in it."""
    if task["interrupts"]:
        return "interrupted"
    return "failed" if task.get("error") else "completed"
