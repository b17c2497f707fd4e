"""A double of a Pinecone index's data plane (API 2025-04), written from its documented wire; searches exactly.

Its quirks: ids are texts, a query of a namespace that is not there answers with nothing, and deleting from one is 404.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

Space = dict[str, list[float]]


@dataclass
class PineconeDouble:
    """The index. `down` answers 503 to everything."""

    dim: int
    spaces: dict[str, Space] = field(default_factory=dict)
    down: bool = False

    def app(self) -> Starlette:
        doors = {
            "/vectors/upsert": self.upsert,
            "/query": self.query,
            "/vectors/delete": self.delete,
            "/describe_index_stats": self.stats,
        }
        routes = [Route(path, door, methods=["POST"]) for path, door in doors.items()]
        return Starlette(routes=[*routes, Route("/vectors/fetch", self.fetch, methods=["GET"])])

    async def upsert(self, request: Request) -> JSONResponse:
        body = await request.json()
        vectors = body["vectors"]
        if any(len(one["values"]) != self.dim for one in vectors):
            return _error(400, f"Vector dimension does not match the dimension of the index {self.dim}")
        space = self.spaces.setdefault(body.get("namespace", ""), {})
        space |= {one["id"]: one["values"] for one in vectors}
        return self._answer({"upsertedCount": len(vectors)})

    async def query(self, request: Request) -> JSONResponse:
        body = await request.json()
        space = self.spaces.get(body.get("namespace", ""), {})
        asked = np.array(body["vector"])
        scores = {one: _cosine(asked, np.array(values)) for one, values in space.items()}
        best = sorted(scores, key=lambda one: -scores[one])[: body["topK"]]
        matches = [{"id": one, "score": scores[one]} for one in best]
        return self._answer(
            {"matches": matches, "namespace": body.get("namespace", ""), "usage": {"readUnits": 1}}
        )

    async def fetch(self, request: Request) -> JSONResponse:
        name = request.query_params.get("namespace", "")
        space = self.spaces.get(name, {})
        asked = request.query_params.getlist("ids")
        found = {one: {"id": one, "values": space[one]} for one in asked if one in space}
        return self._answer({"vectors": found, "namespace": name, "usage": {"readUnits": 1}})

    async def delete(self, request: Request) -> JSONResponse:
        body = await request.json()
        name = body.get("namespace", "")
        if name not in self.spaces:
            return _error(404, "Namespace not found")
        leaving = list(self.spaces[name]) if body.get("deleteAll") else body["ids"]
        self.spaces[name] = {one: values for one, values in self.spaces[name].items() if one not in leaving}
        if not self.spaces[name]:
            del self.spaces[name]
        return self._answer({})

    async def stats(self, _request: Request) -> JSONResponse:
        counts = {name: {"vectorCount": len(space)} for name, space in self.spaces.items()}
        total = sum(map(len, self.spaces.values()))
        return self._answer(
            {"namespaces": counts, "dimension": self.dim, "indexFullness": 0.0, "totalVectorCount": total}
        )

    def _answer(self, body: dict[str, Any]) -> JSONResponse:
        return _error(503, "The index is not available") if self.down else JSONResponse(body)


@contextmanager
def serve(dim: int) -> Iterator[tuple[str, PineconeDouble]]:
    """Run a double on a free loopback port in a thread of its own; yields its address."""
    double = PineconeDouble(dim)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(double.app(), log_config=None, access_log=False, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="pinecone-double")
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", double
        finally:
            server.should_exit = True
            thread.join()


def _error(code: int, message: str) -> JSONResponse:
    return JSONResponse({"code": code, "message": message, "details": []}, code)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9))
