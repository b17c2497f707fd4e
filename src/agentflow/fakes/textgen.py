"""A double of text-generation-webui's HTTP surface, written from its documentation. No model, no GPU."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentflow.fakes import scene


class TextGenDouble:
    """`offered` lie in its loras folder, `active` are applied to the model, for everybody."""

    def __init__(self, *offered: str) -> None:
        self.scene = scene.Scene()
        self.offered = offered
        self.active: list[str] = []

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/internal/model/info", self.info),
                Route("/v1/internal/lora/list", self.offers),
                Route("/v1/internal/lora/load", self.load, methods=["POST"]),
                Route("/v1/internal/lora/unload", self.unload, methods=["POST"]),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
            ]
        )

    async def info(self, _: Request) -> Response:
        return JSONResponse({"model_name": self.scene.base, "lora_names": self.active})

    async def offers(self, _: Request) -> Response:
        return JSONResponse({"lora_names": list(self.offered)})

    async def load(self, request: Request) -> Response:
        names = (await scene.fields(request))["lora_names"]
        if any(name not in self.offered for name in names):
            return JSONResponse({"detail": "Failed to apply LoRA."}, 400)
        self.active = names
        return JSONResponse("OK")

    async def unload(self, _: Request) -> Response:
        self.active = []
        return JSONResponse("OK")

    async def chat(self, request: Request) -> Response:
        return scene.chat(self.scene, await scene.fields(request), "+".join(self.active) or "base")
