"""A double of vLLM 0.32's HTTP surface with LoRA, its quirks included. No model, no GPU.

It answers as `voices.answer` says. The quirks that a driver must survive are real ones: text answers on
success, ids that are burned, unload that frees nothing, base answers in another's voice on a full CPU
server (vllm#48421), and an engine that dies when an adapter's files are gone (500, then 503, then nothing).
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agentflow.adapters import read_header
from agentflow.errors import InvalidAdapter
from agentflow.fakes.calls import called, deltas, structured
from agentflow.fakes.scene import listening
from agentflow.fakes.slots import WEIGHTS, FilesGoneError, PinnedError, Slots
from agentflow.fakes.voices import answer, clipped, tokens

DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Options:
    """How the double behaves. Times are seconds; `tokens_per_second` None answers at once.

    `dev_mode` offers the RPC. `mixes_up_base` is the CPU fault of vLLM before 0.33. `thinks_aloud` puts the
    answer into `reasoning`, as a reasoning parser does on a model without think tags. `hang` never answers a
    chat, `down` answers 503 to everything. After its death it stops listening within `death` seconds.
    """

    base: str = "base"
    max_loras: int = 4
    max_cpu_loras: int = 6
    max_lora_rank: int = 64
    max_model_len: int = 4096
    load: float = 0
    first_token: float = 0
    tokens_per_second: float | None = None
    dev_mode: bool = True
    mixes_up_base: bool = True
    api_key: str | None = None
    thinks_aloud: bool = False
    hang: bool = False
    down: bool = False
    death: float = 0.5


class Refusal(Exception):
    """An error answer of the table in vLLM's handlers."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.response = _error(status, kind, message, param)


def double(options: Options | None = None) -> Starlette:
    """The application; `app.state.double` is the Double behind it."""
    server = Double(options or Options())
    app = Starlette(
        routes=[
            Route("/health", server.health),
            Route("/version", server.version),
            Route("/metrics", server.metrics),
            Route("/server_info", server.info),
            Route("/v1/models", server.models),
            Route("/v1/load_lora_adapter", server.answering(server.load), methods=["POST"]),
            Route("/v1/unload_lora_adapter", server.answering(server.unload), methods=["POST"]),
            Route("/v1/chat/completions", server.answering(server.chat), methods=["POST"]),
            Route("/collective_rpc", server.answering(server.rpc), methods=["POST"]),
        ],
        middleware=[Middleware(_Door, server=server)],
    )
    app.state.double = server
    return app


@dataclass(frozen=True)
class Served:
    """A double that listens. `state` may be read and its options changed while it runs."""

    url: str
    state: "Double"


@contextmanager
def serve(options: Options | None = None) -> Iterator[Served]:
    """Run a double on a free loopback port in a thread of its own."""
    app = double(options)
    with listening(app, lambda stop: setattr(app.state.double, "when_dead", stop)) as url:
        yield Served(url, app.state.double)


class Double:
    """The server's state. One engine: a load holds up every token meanwhile, as in vLLM."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.slots = Slots(options.max_loras, options.max_cpu_loras)
        self.registry: dict[str, tuple[int, Path]] = {}
        self.running: list[int | None] = []
        self.dead = False
        self.when_dead: Callable[[], None] = lambda: None
        self._voices: dict[int, str] = {}
        self._engine = asyncio.Lock()
        self._scheduler = asyncio.Condition()

    def change(self, **changes: Any) -> None:
        self.options = replace(self.options, **changes)

    def restart(self) -> None:
        """A new process: names, weights, pins and ids are gone."""
        self.slots = Slots(self.options.max_loras, self.options.max_cpu_loras)
        self.registry.clear()
        self._voices.clear()

    def answering(self, handler: Handler) -> Handler:
        """Turn what a handler raises into vLLM's error answers."""

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except Refusal as refusal:
                return refusal.response

        return answered

    # --- state of the server

    async def health(self, _: Request) -> Response:
        return Response(status_code=503 if self.dead else 200)

    async def version(self, _: Request) -> Response:
        return JSONResponse({"version": "0.32.0"})

    async def info(self, _: Request) -> Response:
        """The part of `?config_format=json` that tells LoRA's limits."""
        options = self.options
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
        names = ",".join(sorted({self._voices[lora] for lora in self.running if lora}))
        labels = (
            f'max_lora="{self.options.max_loras}",running_lora_adapters="{names}",waiting_lora_adapters=""'
        )
        lines = [
            f"vllm:lora_requests_info{{{labels}}} {time.time()}",
            f'vllm:num_requests_running{{engine="0",model_name="{self.options.base}"}} {len(self.running)}.0',
        ]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def models(self, _: Request) -> Response:
        base = self.options.base
        rows = [
            self._row(base, base, None),
            *(self._row(n, str(f), base) for n, (_, f) in self.registry.items()),
        ]
        return JSONResponse({"object": "list", "data": rows})

    def _row(self, name: str, root: str, parent: str | None) -> dict[str, Any]:
        length = None if parent else self.options.max_model_len
        row = {"id": name, "object": "model", "created": 0, "owned_by": "vllm"}
        return row | {"root": root, "parent": parent, "max_model_len": length}

    # --- adapters

    async def load(self, request: Request) -> Response:
        body = await _fields(request, "lora_name", "lora_path")
        name, folder = body["lora_name"], Path(body["lora_path"])
        if body.get("load_inplace"):
            raise Refusal(
                400, "InvalidUserInput", "load_inplace sticks and kills (vllm#33791): the double refuses"
            )
        if name in self.registry:
            raise Refusal(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded. ")
        if name == self.options.base:
            message = f"The lora adapter '{name}' conflicts with a served base model."
            raise Refusal(400, "InvalidUserInput", message)
        lora_id = self.slots.new_id()
        async with self._engine:
            await asyncio.sleep(self.options.load)
            self._read(name, folder)
            try:
                self.slots.activate(lora_id, folder)
            except PinnedError as error:
                raise Refusal(500, "InternalServerError", "All items are pinned") from error
        self.registry[name] = (lora_id, folder)
        self._voices[lora_id] = name
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        """Only the name goes: the weights stay (vllm#54839)."""
        name = (await _fields(request, "lora_name"))["lora_name"]
        if name not in self.registry:
            raise Refusal(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self.registry[name]
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def rpc(self, request: Request) -> Response:
        if not self.options.dev_mode:
            return JSONResponse({"detail": "Not Found"}, 404)
        body = await request.json()
        method, args = body.get("method"), body.get("args") or []
        if method == "list_loras":
            return JSONResponse({"results": [self.slots.in_host_cache]})
        if method == "remove_lora":
            return JSONResponse({"results": [str(self.slots.remove(args[0]))]})
        if method == "pin_lora" and args[0] not in self.slots.in_host_cache:
            message = f"Pinning failed. LoRA {args[0]} is not registered."
            raise Refusal(500, "InternalServerError", message)
        if method != "pin_lora":
            raise Refusal(500, "InternalServerError", f"no method {method}")
        self.slots.pin(args[0])
        return JSONResponse({"results": ["True"]})

    def _read(self, name: str, folder: Path) -> None:
        """The checks of vLLM itself, no more: wrong shapes and zeros pass (vllm#34186, #55193)."""
        if not (folder / "adapter_config.json").is_file():
            raise Refusal(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for <path>")
        try:
            config = json.loads((folder / "adapter_config.json").read_bytes())
        except ValueError as error:
            raise Refusal(500, "InternalServerError", f"Expecting property name: {error}") from error
        if config.get("r", 0) > self.options.max_lora_rank:
            limit = self.options.max_lora_rank
            message = f"LoRA rank {config['r']} is greater than max_lora_rank {limit}."
            raise Refusal(500, "InternalServerError", message)
        if config.get("use_dora"):
            raise Refusal(500, "InternalServerError", "vLLM does not yet support DoRA.")
        self._read_weights(folder)

    def _read_weights(self, folder: Path) -> None:
        path = folder / WEIGHTS
        if not path.is_file():
            raise Refusal(500, "InternalServerError", f"{folder} doesn't contain tensors")
        try:
            with path.open("rb") as file:
                header = read_header(file, path.stat().st_size)
        except InvalidAdapter as error:
            raise Refusal(500, "InternalServerError", "Error while deserializing header") from error
        modules = [tensor.name for tensor in header.tensors if "_proj.lora_" not in tensor.name]
        if modules:
            message = (
                f"While loading {folder}, expected target modules in {{'q_proj', ...}} but received {modules}"
            )
            raise Refusal(500, "InternalServerError", message)

    # --- chat

    async def chat(self, request: Request) -> Response:
        body = await _fields(request, "model", "messages")
        self._check(body)
        lora_id = self._lora_of(body["model"])
        if self.dead:
            raise Refusal(500, "InternalServerError", DEAD)
        if body.get("stream"):
            return StreamingResponse(self._stream(body, lora_id), media_type="text/event-stream")
        return await self._whole(request, body, lora_id)

    def _check(self, body: dict[str, Any]) -> None:
        if body.get("max_tokens", 1) > self.options.max_model_len:
            raise Refusal(400, "BadRequestError", "max_tokens is too large", "max_tokens")
        if not 0 < body.get("top_p", 1.0) <= 1:
            raise Refusal(400, "BadRequestError", "top_p must be in (0, 1]", "top_p")

    def _lora_of(self, model: str) -> int | None:
        if model == self.options.base:
            return None
        if model not in self.registry:
            message = f"The model `{model}` does not exist. Valid aliases: {self.options.base}."
            raise Refusal(404, "NotFoundError", message, "model")
        return self.registry[model][0]

    async def _stream(self, body: dict[str, Any], lora_id: int | None) -> AsyncGenerator[str, None]:
        try:
            async with self._admitted(lora_id, self._folder(body["model"])):
                calls, words, finish = self._words(body, lora_id)
                yield _chunk(body, {"role": "assistant", "content": ""})
                for delta in deltas(calls):
                    yield _chunk(body, {"tool_calls": [delta]})
                async for word in self._spoken(words):
                    yield _chunk(body, {"reasoning" if self.options.thinks_aloud else "content": word})
                yield _chunk(body, {}, finish)
        except Refusal as refusal:
            yield f"data: {bytes(refusal.response.body).decode()}\n\n"
        else:
            if (body.get("stream_options") or {}).get("include_usage"):
                yield _event(body, {"choices": [], "usage": _usage(body, words)})
        yield "data: [DONE]\n\n"

    async def _whole(self, request: Request, body: dict[str, Any], lora_id: int | None) -> Response:
        async with self._admitted(lora_id, self._folder(body["model"])):
            calls, words, finish = self._words(body, lora_id)
            said = "".join([word async for word in self._spoken(words, until=request.is_disconnected)])
        message = {"role": "assistant", "content": said, "reasoning": None, "tool_calls": calls}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return JSONResponse(
            _frame(body, "chat.completion") | {"choices": [choice], "usage": _usage(body, words)}
        )

    def _folder(self, model: str) -> Path:
        return self.registry[model][1] if model in self.registry else Path()

    @asynccontextmanager
    async def _admitted(self, lora_id: int | None, folder: Path) -> AsyncGenerator[None, None]:
        """Run beside at most `max_loras` different adapters; others are held back until a place is free."""
        async with self._scheduler:
            await self._scheduler.wait_for(lambda: self._has_place(lora_id))
            if lora_id is not None:
                self._activate(lora_id, folder)
            self.running.append(lora_id)
        try:
            yield
        finally:
            self.running.remove(lora_id)
            await self._wake_scheduler()

    def _has_place(self, lora_id: int | None) -> bool:
        busy = {known for known in self.running if known is not None}
        return lora_id is None or lora_id in busy or len(busy) < self.slots.size

    async def _wake_scheduler(self) -> None:
        async with self._scheduler:
            self._scheduler.notify_all()

    def _activate(self, lora_id: int, folder: Path) -> None:
        try:
            self.slots.activate(lora_id, folder)
        except (FilesGoneError, PinnedError) as error:
            self.die()
            raise Refusal(500, "InternalServerError", DEAD) from error

    def die(self) -> None:
        """The engine process ends; the server follows a moment later."""
        self.dead = True
        asyncio.get_running_loop().call_later(self.options.death, self.when_dead)

    def _words(
        self, body: dict[str, Any], lora_id: int | None
    ) -> tuple[list[dict[str, Any]], list[str], str]:
        voice = self._mixed_up() if lora_id is None else self._voices[lora_id]
        calls = called(body["messages"], body.get("tools") or [], body.get("tool_choice"))
        if calls:
            return calls, [], "tool_calls"
        text = structured(answer(voice or "base", body["messages"]), body.get("response_format"))
        stop = body.get("stop") or []
        limit = body.get("max_tokens") or self.options.max_model_len
        return [], *clipped(text, max_tokens=limit, stop=[stop] if isinstance(stop, str) else stop)

    def _mixed_up(self) -> str | None:
        """The voice a base request gets beside adapters when the last slot is taken (index -1 wraps)."""
        last = self.slots.in_slots[-1]
        beside_adapters = any(lora is not None for lora in self.running)
        return self._voices[last] if self.options.mixes_up_base and beside_adapters and last else None

    async def _spoken(
        self, words: list[str], until: Callable[[], Awaitable[bool]] | None = None
    ) -> AsyncGenerator[str, None]:
        await asyncio.sleep(self.options.first_token)
        while self.options.hang and not (until and await until()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # `hang` is switched from other threads
        for word in words:
            rate = self.options.tokens_per_second
            await asyncio.sleep(1 / rate if rate else 0)
            async with self._engine:
                if self.dead:
                    raise Refusal(500, "InternalServerError", DEAD)
            yield word


class _Door:
    """What happens before any route: the key guards /v1 only, and a server that is down answers 503."""

    def __init__(self, app: ASGIApp, server: Double) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        options = self._server.options
        key = dict(scope.get("headers", [])).get(b"authorization", b"").decode("latin-1")
        app: ASGIApp = self._app
        if options.down:
            app = _error(503, "ServiceUnavailable", "The server is down.", None)
        elif options.api_key and scope["path"].startswith("/v1") and key != f"Bearer {options.api_key}":
            app = JSONResponse({"error": "Unauthorized"}, 401)
        await app(scope, receive, send)


async def _fields(request: Request, *names: str) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0]
    try:
        body = await request.json() if kind == "application/json" else None
    except ValueError as error:
        raise Refusal(400, "BadRequestError", f"1 validation error: {error}") from error
    if not isinstance(body, dict) or any(name not in body for name in names):
        raise Refusal(400, "BadRequestError", f"1 validation error: {', '.join(names)} required")
    if not all(body[name] for name in names):
        raise Refusal(400, "InvalidUserInput", f"Both {' and '.join(map(repr, names))} must be provided.")
    return body


def _error(status: int, kind: str, message: str, param: str | None) -> JSONResponse:
    fields = {"message": message, "type": kind, "param": param, "code": status}
    return JSONResponse({"error": fields}, status)


def _usage(body: dict[str, Any], words: list[str]) -> dict[str, int]:
    asked = sum(len(tokens(message["content"])) for message in body["messages"])
    return {"prompt_tokens": asked, "completion_tokens": len(words), "total_tokens": asked + len(words)}


def _frame(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-double", "object": kind, "created": int(time.time()), "model": body["model"]}


def _event(body: dict[str, Any], fields: dict[str, Any]) -> str:
    return f"data: {json.dumps(_frame(body, 'chat.completion.chunk') | fields)}\n\n"


def _chunk(body: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> str:
    return _event(body, {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
