"""A double of SGLang's HTTP surface with LoRA, written from its documentation. No model, no GPU."""

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentflow.fakes import scene
from agentflow.fakes.files import fault_of


class SglangDouble:
    """`loaded` maps names to (path, pinned), as the answers of loads tell."""

    def __init__(self, max_loras: int = 8) -> None:
        self.scene = scene.Scene(base="Qwen/Qwen3-0.6B")
        self.max_loras = max_loras
        self.loaded: dict[str, tuple[str, bool]] = {}

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/v1/models", self.models),
                Route("/load_lora_adapter", self.load, methods=["POST"]),
                Route("/unload_lora_adapter", self.unload, methods=["POST"]),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
            ]
        )

    async def health(self, _: Request) -> Response:
        return Response(status_code=200)

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": self.scene.base, "root": self.scene.base}]})

    async def load(self, request: Request) -> Response:
        body = await scene.fields(request)
        name, path = body["lora_name"], body["lora_path"]
        if name in self.loaded:
            return self._told(f"LoRA with name '{name}' already exists")
        if reason := fault_of(Path(path)):
            return self._told(reason)
        pins = sum(pinned for _, pinned in self.loaded.values())
        if body.get("pinned") and pins >= self.max_loras - 1:
            return self._told("the number of pinned adapters must leave one slot free")
        self.loaded[name] = (path, bool(body.get("pinned")))
        return self._told(None)

    async def unload(self, request: Request) -> Response:
        name = (await scene.fields(request))["lora_name"]
        if name not in self.loaded:
            return self._told(f"LoRA adapter '{name}' is not loaded")
        del self.loaded[name]
        return self._told(None)

    async def chat(self, request: Request) -> Response:
        body = await scene.fields(request)
        _, _, adapter = str(body["model"]).partition(":")
        if adapter and adapter not in self.loaded:
            message = f"The following requested LoRA adapters are not loaded: {adapter}"
            return JSONResponse(
                {"object": "error", "message": message, "type": "BadRequest", "code": 400}, 400
            )
        return scene.chat(self.scene, body, adapter or "base")

    def _told(self, problem: str | None) -> Response:
        adapters: dict[str, Any] = {name: path for name, (path, _) in self.loaded.items()}
        body = {"success": problem is None, "error_message": problem or "", "loaded_adapters": adapters}
        return JSONResponse(body, 400 if problem else 200)
