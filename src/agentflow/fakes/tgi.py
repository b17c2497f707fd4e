"""A double of Text Generation Inference's HTTP surface, written from its documentation. No model, no GPU."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agentflow.fakes import scene


class TgiDouble:
    """`adapters` are the names of LORA_ADAPTERS: they never change."""

    def __init__(self, *adapters: str) -> None:
        self.scene = scene.Scene()
        self.adapters = adapters

    def app(self) -> Starlette:
        return scene.surface(self.info, self.chat)

    async def info(self, _: Request) -> Response:
        return JSONResponse({"model_id": self.scene.base, "version": "3.3.7"})

    async def chat(self, request: Request) -> Response:
        body = await scene.fields(request)
        adapter = body["model"]
        if adapter not in ("tgi", *self.adapters):
            message = f"Request failed during generation: adapter {adapter} not found"
            return JSONResponse({"error": message, "error_type": "generation"}, 424)
        return scene.chat(self.scene, body, "base" if adapter == "tgi" else adapter)
