"""The double's routes besides chat: its state, its adapters, its development RPC."""

import time
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from agentflow.fakes.vllm.engine import Double
from agentflow.fakes.vllm.refusal import Refusal, fields


class Surface:
    """One method per route."""

    def __init__(self, engine: Double) -> None:
        self._engine = engine

    # --- state of the server

    async def health(self, _: Request) -> Response:
        return Response(status_code=503 if self._engine.dead else 200)

    async def version(self, _: Request) -> Response:
        return JSONResponse({"version": "0.32.0"})

    async def info(self, _: Request) -> Response:
        """The part of `?config_format=json` that tells LoRA's limits."""
        options = self._engine.options
        if not options.dev_mode:
            return JSONResponse({"detail": "Not Found"}, 404)
        lora = {"max_loras": options.max_loras, "max_cpu_loras": options.max_cpu_loras}
        device = "cpu" if options.mixes_up_base else "cuda"
        config = {
            "lora_config": lora | {"max_lora_rank": options.max_lora_rank},
            "device_config": {"device": device},
        }
        return JSONResponse({"vllm_config": config})

    async def metrics(self, _: Request) -> Response:
        options, running = self._engine.options, len(self._engine.running)
        names = ",".join(self._engine.speakers())
        labels = f'max_lora="{options.max_loras}",running_lora_adapters="{names}",waiting_lora_adapters=""'
        lines = [
            f"vllm:lora_requests_info{{{labels}}} {time.time()}",
            f'vllm:num_requests_running{{engine="0",model_name="{options.base}"}} {running}.0',
        ]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def models(self, _: Request) -> Response:
        base = self._engine.options.base
        rows = [
            self._row(base, base, None),
            *(self._row(n, str(f), base) for n, (_, f) in self._engine.registry.items()),
        ]
        return JSONResponse({"object": "list", "data": rows})

    def _row(self, name: str, root: str, parent: str | None) -> dict[str, Any]:
        length = None if parent else self._engine.options.max_model_len
        row = {"id": name, "object": "model", "created": 0, "owned_by": "vllm"}
        return row | {"root": root, "parent": parent, "max_model_len": length}

    # --- adapters

    async def load(self, request: Request) -> Response:
        body = await fields(request, "lora_name", "lora_path")
        name, folder = body["lora_name"], Path(body["lora_path"])
        if body.get("load_inplace"):
            message = "load_inplace sticks and kills (vllm#33791): the double refuses"
            raise Refusal(400, "InvalidUserInput", message)
        if name in self._engine.registry:
            raise Refusal(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded. ")
        if name == self._engine.options.base:
            message = f"The lora adapter '{name}' conflicts with a served base model."
            raise Refusal(400, "InvalidUserInput", message)
        await self._engine.load(name, folder)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        """Only the name goes: the weights stay (vllm#54839)."""
        name = (await fields(request, "lora_name"))["lora_name"]
        if name not in self._engine.registry:
            raise Refusal(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self._engine.registry[name]
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def rpc(self, request: Request) -> Response:
        if not self._engine.options.dev_mode:
            return JSONResponse({"detail": "Not Found"}, 404)
        body = await request.json()
        method, args = body.get("method"), body.get("args") or []
        if method == "list_loras":
            return JSONResponse({"results": [self._engine.slots.in_host_cache]})
        if method == "remove_lora":
            return JSONResponse({"results": [str(self._engine.slots.remove(args[0]))]})
        if method == "pin_lora" and args[0] not in self._engine.slots.in_host_cache:
            message = f"Pinning failed. LoRA {args[0]} is not registered."
            raise Refusal(500, "InternalServerError", message)
        if method != "pin_lora":
            raise Refusal(500, "InternalServerError", f"no method {method}")
        self._engine.slots.pin(args[0])
        return JSONResponse({"results": ["True"]})
