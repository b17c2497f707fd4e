"""A thread's history as a list of places, in the words of the event protocol. Pure."""

from collections.abc import Sequence

from agentflow.turn import Json


def space(namespace: Sequence[str]) -> Json | None:
    """The place of a subgraph, whose segments the protocol keeps apart; None for the whole graph's."""
    return {"checkpoint_ns": "|".join(namespace)} if namespace else None


def listed(states: Sequence[Json]) -> list[Json]:
    """Places of states, newest first; each names the step that led to it where that is one."""
    known = {one["checkpoint_id"]: one for one in states}
    return [_shown(one, known.get(one["parent_checkpoint_id"])) for one in states]


def _shown(state: Json, parent: Json | None) -> Json:
    metadata = state["metadata"] or {}
    steps = parent["next"] if parent is not None and metadata.get("source") == "loop" else []
    return {
        "id": state["checkpoint_id"],
        "timestamp": state["created_at"],
        "step": metadata.get("step", -1),
        **({"node_name": steps[0]} if len(steps) == 1 else {}),
        "metadata": metadata,
    }
