"""LangGraph's store over our Postgres: every user sees a store of their own, whatever namespace they name."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchOp,
)
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg.rows import dict_row

from agentflow.protocols import Owner
from agentflow.records.connections import Connections


class OwnedStore(AsyncPostgresStore):
    """Rows of one owner, over the pool of the checkpoints."""

    def __init__(self, connections: Connections, owner: Owner) -> None:
        super().__init__(connections.checkpoints)  # type: ignore[arg-type] # rows are asked for as dicts
        self._connections = connections
        self._owner = owner

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(self._connections.use_checkpoints(self._owner))
            if pipeline:
                await stack.enter_async_context(connection.pipeline())
            cursor = connection.cursor(binary=True, row_factory=dict_row)
            yield await stack.enter_async_context(cursor)


class UserStore(BaseStore):
    """One user's store. Two users' items may have the same names, so names begin with their owner's."""

    supports_ttl = True

    def __init__(self, connections: Connections, owner: Owner) -> None:
        self._open = partial(OwnedStore, connections, owner)
        self._opened: BaseStore | None = None
        self.root = (f"t{owner.tenant}", "u" + (owner.user or "").encode().hex())

    @property
    def inner(self) -> BaseStore:
        """Opened at the first use: most graphs use none."""
        self._opened = self._opened or self._open()
        return self._opened

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """See BaseStore. Raises DatabaseDown."""
        return [self._out(one) for one in await self.inner.abatch([self._in(op) for op in ops])]

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """See BaseStore; for nodes that run in threads."""
        return [self._out(one) for one in self.inner.batch([self._in(op) for op in ops])]

    def _in(self, op: Op) -> Op:
        match op:
            case GetOp() | PutOp():
                return op._replace(namespace=self.root + op.namespace)
            case SearchOp():
                return op._replace(namespace_prefix=self.root + op.namespace_prefix)
            case ListNamespacesOp():
                return self._listing(op)
            case _:
                raise TypeError(f"Not an operation of a store: {op!r}")

    def _listing(self, op: ListNamespacesOp) -> ListNamespacesOp:
        conditions = [one for one in op.match_conditions or () if one.match_type != "prefix"]
        prefixes = [one for one in op.match_conditions or () if one.match_type == "prefix"]
        inside = [MatchCondition("prefix", (*self.root, *one.path)) for one in prefixes]
        inside = inside or [MatchCondition("prefix", self.root)]
        depth = None if op.max_depth is None else op.max_depth + len(self.root)
        return op._replace(match_conditions=(*inside, *conditions), max_depth=depth)

    def _out(self, found: Any) -> Any:
        if isinstance(found, Item):
            found.namespace = self._inside(found.namespace)
            return found
        if isinstance(found, list):
            return [self._inside(one) if isinstance(one, tuple) else self._out(one) for one in found]
        return found

    def _inside(self, namespace: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(namespace[len(self.root) :])
