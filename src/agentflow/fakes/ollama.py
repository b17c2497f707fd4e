"""A double of Ollama's HTTP surface, written from its documentation. No model, no GPU."""

import hashlib
import json
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agentflow.adapters import WEIGHTS
from agentflow.fakes import scene
from agentflow.fakes.files import fault_of_weights


class OllamaDouble:
    """`models` maps created models to their base, `present` those in memory to their keep_alive."""

    def __init__(self, *, takes_safetensors: bool = True) -> None:
        self.scene = scene.Scene(base="llama3.2")
        self.takes_safetensors = takes_safetensors
        self.blobs: dict[str, bytes] = {}
        self.models: dict[str, str] = {}
        self.present: dict[str, Any] = {}

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/version", self.version),
                Route("/api/ps", self.processes),
                Route("/api/blobs/{digest}", self.blob, methods=["HEAD", "POST"]),
                Route("/api/create", self.create, methods=["POST"]),
                Route("/api/chat", self.chat, methods=["POST"]),
            ]
        )

    async def version(self, _: Request) -> Response:
        return JSONResponse({"version": "0.13.0"})

    async def processes(self, _: Request) -> Response:
        rows = [{"name": name, "model": name, "size": 9, "size_vram": 9} for name in self.present]
        return JSONResponse({"models": rows})

    async def blob(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        if request.method == "HEAD":
            return Response(status_code=200 if digest in self.blobs else 404)
        content = await request.body()
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            return JSONResponse({"error": "digest mismatch"}, 400)
        self.blobs[digest] = content
        return Response(status_code=201)

    async def create(self, request: Request) -> Response:
        body = await scene.fields(request)
        adapters: dict[str, str] = body["adapters"]
        if body["from"] != self.scene.base:
            return JSONResponse({"error": f"model '{body['from']}' not found"}, 404)
        if any(digest not in self.blobs for digest in adapters.values()):
            return JSONResponse({"error": "blob not found"}, 400)
        if not any(name.endswith(".gguf") for name in adapters):
            if not self.takes_safetensors or WEIGHTS not in adapters:
                return JSONResponse({"error": "unsupported architecture"}, 400)
            if reason := self._fault(self.blobs[adapters[WEIGHTS]]):
                return JSONResponse({"error": reason}, 400)
        self.models[body["model"]] = body["from"]
        return JSONResponse({"status": "success"})

    async def chat(self, request: Request) -> Response:
        body = await scene.fields(request)
        model = body["model"]
        if model not in (self.scene.base, *self.models):
            return JSONResponse({"error": f"model '{model}' not found"}, 404)
        self._keep(model, body.get("keep_alive", "5m"))
        if not body["messages"]:
            reason = "load" if model in self.present else "unload"
            return JSONResponse({"model": model, "done": True, "done_reason": reason})
        if response := self.scene.failure():
            return response
        voice = model.removeprefix("agentflow-").partition(":")[0] if model in self.models else "base"
        options = body.get("options") or {}
        words, finish = self.scene.words(voice, body | options, limit=options.get("num_predict") or 512)
        return StreamingResponse(self._lines(body, words, finish), media_type="application/x-ndjson")

    async def _lines(self, body: dict[str, Any], words: list[str], finish: str) -> AsyncGenerator[str, None]:
        async for word in self.scene.spoken(words):
            yield json.dumps({"message": {"role": "assistant", "content": word}, "done": False}) + "\n"
            if self.scene.fault == "garbage":
                yield "{not json\n"
        if self.scene.fault != "silence":
            counts = {"prompt_eval_count": scene.asked(body), "eval_count": len(words)}
            message = {"role": "assistant", "content": ""}
            yield json.dumps({"message": message, "done": True, "done_reason": finish, **counts}) + "\n"

    def _keep(self, model: str, keep_alive: Any) -> None:
        self.present[model] = keep_alive
        if keep_alive == 0:
            del self.present[model]

    def _fault(self, weights: bytes) -> str | None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / WEIGHTS
            path.write_bytes(weights)
            return fault_of_weights(path)
