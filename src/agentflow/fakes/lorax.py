"""A double of LoRAX's HTTP surface, written from its documentation. No model, no GPU."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agentflow.fakes import scene
from agentflow.fakes.files import fault_of


class LoraxDouble:
    """Reads an adapter at its first request. `names` says in which voice a folder speaks."""

    def __init__(self) -> None:
        self.scene = scene.Scene()
        self.names: dict[str, str] = {}
        self.read: list[str] = []

    def app(self) -> Starlette:
        return scene.surface(self.info, self.chat)

    async def info(self, _: Request) -> Response:
        return JSONResponse({"model_id": self.scene.base, "max_active_adapters": 1024})

    async def chat(self, request: Request) -> Response:
        body = await scene.fields(request)
        folder = body["model"]
        if folder and body.get("adapter_source") != "local":
            return JSONResponse({"error": f"Repository {folder} not found", "error_type": "validation"}, 422)
        if folder and folder not in self.read:
            if reason := fault_of(Path(folder)):
                return JSONResponse({"error": reason, "error_type": "generation"}, 424)
            self.read.append(folder)
        return scene.chat(self.scene, body, self.names.get(folder, folder) if folder else "base")
