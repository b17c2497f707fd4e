"""The graphs this server serves, by id; filled at start, never by a request."""

import inspect
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from langgraph.graph.state import StateGraph
from langgraph.pregel import Pregel

from agentflow.errors import ConfigError, NotFound
from agentflow.turn import Json

OWN = "agent"
"""The id of our own graph."""
NAMESPACE = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


def assistant_of(graph: str) -> str:
    """The id of a graph's default assistant: the same on every server of this protocol."""
    return str(uuid5(NAMESPACE, graph))


def can_be_served(source: Any) -> bool:
    """Whether it is a graph, or may make one."""
    return callable(source) or isinstance(source, Pregel | StateGraph)


@dataclass
class Registry:
    """Graph id to a compiled graph, an uncompiled one, or a factory of either that may take a config."""

    sources: dict[str, Any] = field(default_factory=dict)
    _compiled: dict[str, Pregel[Any, Any, Any, Any]] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return list(self.sources)

    def replace(self, graph: str, source: Any) -> None:
        """Serve another graph under this id from now on."""
        self.sources[graph] = source
        self._compiled.pop(graph, None)

    @asynccontextmanager
    async def opened(self, graph: str, config: Mapping[str, Any] | None = None) -> AsyncIterator[Any]:
        """The compiled graph; a factory is called every time. Raises NotFound and ConfigError."""
        if graph not in self.sources:
            message = f"No graph {graph!r} is served here. Graphs: {', '.join(self.sources)}."
            raise NotFound(message, field="graph_id", value=graph)
        source = self.sources[graph]
        if isinstance(source, Pregel | StateGraph):
            yield self._once(graph, source)
            return
        made = _called(source, dict(config or {}))
        if isinstance(made, AbstractAsyncContextManager):
            async with made as inner:
                yield _compiled(graph, inner)
        elif isinstance(made, AbstractContextManager):
            with made as inner:
                yield _compiled(graph, inner)
        else:
            yield _compiled(graph, await made if inspect.isawaitable(made) else made)

    def _once(self, graph: str, source: Any) -> Pregel[Any, Any, Any, Any]:
        if graph not in self._compiled:
            self._compiled[graph] = _compiled(graph, source)
        return self._compiled[graph]


def _called(factory: Any, config: Json) -> Any:
    takes_config = len(inspect.signature(factory).parameters) > 0
    return factory(config) if takes_config else factory()


def _compiled(graph: str, source: Any) -> Pregel[Any, Any, Any, Any]:
    if isinstance(source, StateGraph):
        return source.compile(name=graph)
    if isinstance(source, Pregel):
        return source
    raise ConfigError(f"Graph {graph!r} is a {type(source).__name__}, not a LangGraph graph.", field=graph)
