"""The agent of a thread and the subgraphs within it, and how far each has come in a run."""

from collections.abc import Iterable

import orjson

from agentflow.protocols import Owner
from agentflow.records.protocol.listeners import RunInThread
from agentflow.runs.events import Event
from agentflow.runs.subgraphs import Subgraphs, Told
from agentflow.runs.thread_stream import ThreadStreams
from agentflow.turn import Json

STATUS = ("running", "running", "completed", "failed", "interrupted")
"""By the number that the ledger has for a run's."""


async def agents(streams: ThreadStreams, owner: Owner, thread_id: str, run_id: str | None) -> Json | None:
    """The tree of a run, or of the last one; None: there is no such run. Subgraphs are known while events are kept."""
    run = await _run(streams, owner, thread_id, run_id)
    return None if run is None else grown(run, await streams.following.known(owner, run.run_id))


def grown(run: RunInThread, events: Iterable[Event]) -> Json:
    """The tree that a run's events make."""
    subgraphs, root = Subgraphs(), _node([], STATUS[run.status], run.graph)
    known: dict[tuple[str, ...], Json] = {(): root}
    for event in events:
        mode, *names = event.name.split("|")
        data = orjson.loads(event.data) if mode in ("tasks", "updates") else {}
        _note(known, subgraphs.heard(mode, names, data))
        if not run.going and event.name == "updates" and "__interrupt__" in data:
            root["status"] = "interrupted"
    if not run.going:
        _note(known, subgraphs.left((), root["status"]))
    return root


def _note(known: dict[tuple[str, ...], Json], told: Iterable[Told]) -> None:
    for _, names, data in told:
        space = tuple(names)
        if space not in known:
            known[space] = _node(names, data["event"], data["graph_name"])
            known[space[:-1]]["children"].append(known[space])
        known[space]["status"] = data["event"]


def _node(namespace: list[str], status: str, graph: str) -> Json:
    return {"namespace": namespace, "status": status, "graph_name": graph, "children": []}


async def _run(
    streams: ThreadStreams, owner: Owner, thread_id: str, run_id: str | None
) -> RunInThread | None:
    if run_id is not None:
        found = await streams.listeners.now(owner, run_id)
        return found if found is not None and found.thread_id == thread_id else None
    places = await streams.listeners.places(owner, thread_id)
    place = places.open or places.last
    runs = await streams.listeners.runs(owner, thread_id, place) if place else []
    return runs[0] if runs else None
