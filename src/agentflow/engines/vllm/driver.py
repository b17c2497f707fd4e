"""The driver of a vLLM server."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from agentflow.engines.vllm.flights import Flights
from agentflow.engines.vllm.registry import Registry
from agentflow.engines.vllm.server import Server
from agentflow.errors import EngineError, GenerationFailed
from agentflow.protocols import Capabilities, EngineTier, Health, Loaded, Piece, Prompt
from agentflow.speech import chat
from agentflow.speech.names import no_host_tier
from agentflow.speech.wire import Refused, Timeouts, Wire
from agentflow.turn import Json


@dataclass(frozen=True)
class _Served:
    """The base model: its name, and how many tokens it reads and writes together, if the server tells."""

    name: str
    length: int | None


class Vllm:
    """Any OpenAI-compatible vLLM server, started with --enable-lora and runtime updating allowed.

    `url` with or without /v1. `base` is the served name of the base model, None asks the server.
    `thinking` is passed to the chat template where the model knows it (Qwen3), None leaves it alone.
    `slots` is how many adapters will be loaded at once: a server that is too small for them is refused.
    The folders given to `load` must be visible to the server under the same path.
    """

    name = "vllm"

    def __init__(
        self,
        url: str,
        *,
        base: str | None = None,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        thinking: bool | None = None,
        slots: int | None = None,
    ) -> None:
        limits = timeouts or Timeouts()
        self._wire = Wire(url, api_key, limits, self._lost)
        self._server = Server(self._wire)
        self._registry = Registry(self._wire, self._server, limits, self._probe, slots)
        self._flights = Flights()
        self._base = base
        self._served: _Served | None = None
        self._thinking = thinking

    @property
    def capabilities(self) -> Capabilities:
        """`unload_frees` and `pin` need the development RPC, looked for at the first health check or load."""
        rpc = self._server.has_rpc is True
        return Capabilities(
            runtime_load=True,
            unload_frees=rpc,
            pin=rpc,
            exact_list=False,
            mixed_batch=True,
            tools=True,
            structured=True,
        )

    @property
    def restarts(self) -> int:
        return self._registry.restarts

    async def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece, None]:
        """Stream an answer. An adapter the server has forgotten is registered again, once."""
        with self._flights.of(adapter):
            for retry in (True, False):
                if adapter is not None:
                    await self._registry.ready(adapter)
                try:
                    async with aclosing(self._answer(prompt, adapter)) as pieces:
                        async for piece in pieces:
                            yield piece
                except Refused as refusal:
                    forgotten = refusal.status == 404 and adapter and self._registry.folder(adapter)
                    if not (retry and forgotten):
                        raise chat.refused(self._wire.url, refusal, adapter) from refusal
                    self._lost()
                else:
                    return

    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None:
        """Raises AdapterError, NoRoom when all slots are pinned."""
        no_host_tier("vLLM", tier)
        await self._registry.load(name, folder)

    async def unload(self, name: str) -> None:
        """Take the name out, wait for its generations, then free the weights where the server allows it."""
        left = await self._registry.unload(name)
        if left is not None:
            await self._flights.landed(name)
            await self._server.rpc("remove_lora", left)

    async def pin(self, name: str) -> None:
        await self._registry.pin(name)

    async def unpin(self, name: str) -> None:
        await self._registry.unpin(name)

    async def loaded(self) -> Sequence[Loaded]:
        return await self._registry.loaded()

    async def health(self) -> Health:
        try:
            await self._wire.get("/health")
            version = await self._server.version()
            await self._server.host_ids()
        except EngineError as error:
            return Health(ok=False, detail=error.message)
        return Health(ok=True, detail=f"vLLM {version} at {self._wire.url}")

    async def close(self) -> None:
        await self._wire.close()

    def _lost(self) -> None:
        self._registry.lost()
        self._served = None

    async def _probe(self, name: str) -> None:
        await chat.listened(self._answer(chat.ONE_TOKEN, name))

    async def _answer(self, prompt: Prompt, adapter: str | None) -> AsyncGenerator[Piece, None]:
        served = await self._base_model()
        asked = self._body(prompt, adapter or served.name, served.length)
        async with aclosing(chat.answer(self._wire, asked)) as pieces:
            async for piece in pieces:
                yield piece

    def _body(self, prompt: Prompt, model: str, length: int | None) -> Json:
        """VLLM shortens `max_tokens` to the room behind the prompt, but refuses more than its whole length."""
        asked = chat.body(prompt, model)
        asked["max_tokens"] = min(prompt.max_tokens, length or prompt.max_tokens)
        if self._thinking is not None:
            asked["chat_template_kwargs"] = {"enable_thinking": self._thinking}
        return asked

    async def _base_model(self) -> _Served:
        if self._served is None:
            rows = [row for row in await self._server.models() if not row.get("parent")]
            row = next((row for row in rows if self._base in (None, row["id"])), None)
            if row is None:
                raise GenerationFailed(
                    f"The engine at {self._wire.url} does not serve the base model '{self._base or ''}', only "
                    f"{[row['id'] for row in rows]}.",
                    field="model.base",
                    value=self._base,
                )
            length = row.get("max_model_len")
            self._served = _Served(row["id"], length if isinstance(length, int) else None)
        return self._served
