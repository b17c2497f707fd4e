"""A double of llama.cpp's server, written from its documentation and held against the real one. No model."""

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentflow.fakes import scene


class LlamaCppDouble:
    """`paths` are the files of --lora, in the order of their ids.

    As the real one does, it applies all of them to a request that names none.
    """

    def __init__(self, *paths: str) -> None:
        self.scene = scene.Scene()
        self.paths = list(paths)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/lora-adapters", self.adapters),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
            ]
        )

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def adapters(self, _: Request) -> Response:
        return JSONResponse(
            [{"id": place, "path": path, "scale": 0.0} for place, path in enumerate(self.paths)]
        )

    async def chat(self, request: Request) -> Response:
        body = await scene.fields(request)
        scales: list[dict[str, Any]] = body.get("lora") or []
        if any(not 0 <= one["id"] < len(self.paths) for one in scales):
            return scene.error(400, "Invalid LoRA adapter id")
        wanted = [one["id"] for one in scales if one["scale"]] if scales else range(len(self.paths))
        applied = [Path(self.paths[place]).stem for place in wanted]
        return scene.chat(self.scene, body, "+".join(applied) or "base")
