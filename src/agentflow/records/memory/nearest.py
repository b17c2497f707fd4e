"""The nearest memories of a scope, compared one by one: where no index and no place outside Postgres knows them."""

import asyncio

import numpy as np

from agentflow.protocols import Vectors
from agentflow.records.connections import Connection
from agentflow.records.memory.scopes import Place
from agentflow.retrieval.codes import cosines

CODES = """
select count(*), string_agg(int8send(id), ''::bytea), string_agg(embedding, ''::bytea) from memory
where collection_id = %(collection)s and scope_id = %(scope)s and embedding is not null
"""
MANY = 10_000
"""Memories from which on others go on while they are compared."""


async def nearest(connection: Connection, place: Place, vector: Vectors, width: int) -> list[int]:
    """Ids of the `width` nearest, nearest first."""
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(CODES, {"collection": place.collection_id, "scope": place.scope_id})
        number, ids, codes = await cursor.fetchone() or (0, None, None)
    if not number:
        return []
    compared = (np.frombuffer(ids, ">i8"), codes, vector, width)
    return await asyncio.to_thread(_best, *compared) if number >= MANY else _best(*compared)


def _best(ids: np.typing.NDArray[np.int64], codes: bytes, vector: Vectors, width: int) -> list[int]:
    found: list[int] = ids[np.lexsort((ids, -cosines(codes, len(ids), vector)))[:width]].tolist()
    return found
