"""The driver of a vLLM server.

vLLM shows no residency, frees nothing on unload and forgets every runtime adapter when it restarts
(vllm#54839, #45325, #12174). So the driver keeps its own ledger of name, folder and id.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agentflow.adapters import WEIGHTS
from agentflow.engines.vllm.speech import Speech
from agentflow.engines.vllm.wire import Refused, Timeouts, Wire
from agentflow.errors import (
    AdapterError,
    AgentflowError,
    EngineDown,
    EngineError,
    EngineTimeout,
    GenerationFailed,
    NoRoom,
    PromptRefused,
)
from agentflow.protocols import Capabilities, EngineTier, Health, Loaded, Piece, Prompt
from agentflow.turn import Json


@dataclass(frozen=True)
class _Entry:
    """A name this driver loaded. `wanted` until unloaded, `registered` while the server should know it."""

    folder: Path
    lora_id: int | None
    wanted: bool = True
    registered: bool = True
    pinned: bool = False


@dataclass(frozen=True)
class _Served:
    """The base model: its name, and how many tokens it reads and writes together, if the server tells."""

    name: str
    length: int | None


class Vllm:
    """Any OpenAI-compatible vLLM server, started with --enable-lora and runtime updating allowed.

    `url` with or without /v1. `base` is the served name of the base model, None asks the server.
    `thinking` is passed to the chat template where the model knows it (Qwen3), None leaves it alone.
    `slots` is the server's --max-loras: without it nothing can be pinned, since a server whose slots are
    all pinned dies of the next request. The folders given to `load` must be visible to the server under the
    same path.
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
        self._timeouts = timeouts or Timeouts()
        self._wire = Wire(url, api_key, self._timeouts, self._lost)
        self._base = base
        self._served: _Served | None = None
        self._thinking = thinking
        self._slots = slots
        self.restarts = 0
        self._loading = asyncio.Lock()
        self._known: dict[str, _Entry] = {}
        self._seen: set[int] = set()
        self._has_rpc: bool | None = None
        self._flights = _Flights()

    @property
    def capabilities(self) -> Capabilities:
        """`unload_frees` and `pin` need the development RPC, looked for at the first health check or load."""
        rpc = self._has_rpc is True
        return Capabilities(
            runtime_load=True,
            unload_frees=rpc,
            pin=rpc,
            exact_list=False,
            mixed_batch=True,
            tools=True,
            structured=True,
        )

    async def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece, None]:
        """Stream an answer. An adapter the server has forgotten is registered again, once."""
        with self._flights.of(adapter):
            for retry in (True, False):
                self._check(adapter)
                await self._restore(adapter)
                try:
                    async with aclosing(self._answer(prompt, adapter)) as pieces:
                        async for piece in pieces:
                            yield piece
                except Refused as refusal:
                    if not (retry and refusal.status == 404 and self._knows(adapter)):
                        raise self._failure(refusal, adapter) from refusal
                    self._lost()
                else:
                    return

    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None:
        """Register, activate and hear one token. Raises AdapterError (NoRoom when all slots are pinned)."""
        home = _absolute(folder)
        if tier != "vram":
            raise AdapterError(
                "adapter: vLLM's host cache is its own: an adapter cannot rest there by order."
            )
        async with self._loading:
            entry = self._known.get(name)
            if entry and entry.folder != home:
                raise AdapterError(
                    f"adapter: '{name}' was loaded from {entry.folder} and cannot come from {home} too: "
                    "caches would answer with the old weights. Give the new files a new name.",
                    field="adapter",
                    value=name,
                )
            if entry and entry.registered:
                return
            self._known[name] = entry or _Entry(home, None, wanted=False, registered=False)
            try:
                lora_id = await self._register(name, home)
                await self._probe(name)
            except AgentflowError as error:
                if entry is None and not isinstance(error, EngineTimeout):
                    del self._known[name]
                raise
            self._known[name] = _Entry(home, lora_id)

    async def unload(self, name: str) -> None:
        """Take the name out, wait for its generations, then free the weights where the server allows it."""
        async with self._loading:
            entry = self._known.get(name)
            if entry:
                self._known[name] = replace(entry, wanted=False, registered=False, lora_id=None, pinned=False)
            was_there = await self._forget(name)
        if entry and entry.lora_id is not None and was_there:
            await self._flights.landed(name)
            await self._rpc("remove_lora", entry.lora_id)

    async def pin(self, name: str) -> None:
        """Raises NoRoom before the last free slot is pinned, AdapterError without the development RPC."""
        async with self._loading:
            entry = self._entry(name)
            pinned = sum(one.pinned for one in self._known.values())
            if not entry.pinned and pinned >= await self._pinnable():
                raise NoRoom(
                    f"'{name}' cannot be pinned: {pinned} adapters are, and the engine needs free slots for the "
                    "others or it dies. Unpin one, or give the engine more --max-loras and model.slots.",
                    field="pin",
                    value=name,
                )
            if entry.lora_id is None:
                raise AdapterError(
                    f"'{name}' cannot be pinned: the engine at {self._wire.url} offers no development RPC. Start "
                    "it with VLLM_SERVER_DEV_MODE=1 on a private address.",
                    field="pin",
                    value=name,
                )
            await self._rpc("pin_lora", entry.lora_id)
            self._known[name] = replace(entry, pinned=True)

    async def unpin(self, name: str) -> None:
        """The server has no such call: the adapter is taken out and read again by one token."""
        async with self._loading:
            entry = self._known.get(name)
            if entry is None or not entry.pinned or entry.lora_id is None:
                return
            await self._rpc("remove_lora", entry.lora_id)
            self._known[name] = replace(entry, pinned=False)
            await self._probe(name)

    async def loaded(self) -> Sequence[Loaded]:
        """Registered adapters, less those that left the host cache. The slot level is not told.

        Names whose load was given up here but went on there are taken out.
        """
        registered = [row["id"] for row in await self._models() if row.get("parent")]
        if any(entry.registered and name not in registered for name, entry in self._known.items()):
            self._lost()
        given_up = [name for name in registered if name in self._known and not self._known[name].wanted]
        if given_up and not self._loading.locked():
            for name in given_up:
                await self._forget(name)
            registered = [name for name in registered if name not in given_up]
        resident = await self._host_ids()
        return [self._shown(name) for name in registered if self._is_resident(name, resident)]

    async def health(self) -> Health:
        try:
            await self._wire.get("/health")
            version = (await self._wire.get("/version")).json()["version"]
            await self._host_ids()
        except EngineError as error:
            return Health(ok=False, detail=error.message)
        return Health(ok=True, detail=f"vLLM {version} at {self._wire.url}")

    async def close(self) -> None:
        await self._wire.close()

    # --- generations

    async def _answer(self, prompt: Prompt, adapter: str | None) -> AsyncGenerator[Piece, None]:
        served = await self._base_model()
        speech = Speech(adapter or served.name)
        body = self._body(prompt, adapter or served.name, served.length)
        async with aclosing(self._wire.events("/v1/chat/completions", body)) as events:
            async for event in events:
                for piece in speech.hear(event):
                    yield piece
        yield speech.last()

    def _body(self, prompt: Prompt, model: str, length: int | None) -> Json:
        """VLLM shortens `max_tokens` to the room behind the prompt, but refuses more than its whole length."""
        body: Json = {
            "model": model,
            "messages": list(prompt.messages),
            "max_tokens": min(prompt.max_tokens, length or prompt.max_tokens),
            "temperature": prompt.temperature,
            "top_p": prompt.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.seed is not None:
            body["seed"] = prompt.seed
        if prompt.stop:
            body["stop"] = list(prompt.stop)
        if prompt.tools:
            body |= {"tools": list(prompt.tools), "tool_choice": prompt.tool_choice or "auto"}
        if prompt.response_format is not None:
            body["response_format"] = prompt.response_format
        if self._thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": self._thinking}
        return body

    async def _base_model(self) -> _Served:
        if self._served is None:
            rows = [row for row in await self._models() if not row.get("parent")]
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

    def _knows(self, adapter: str | None) -> bool:
        return adapter in self._known and self._known[adapter].wanted

    def _check(self, adapter: str | None) -> None:
        """Only what was loaded here is asked for, and only while its files are there: the server reads them
        again when the adapter has left its cache, and dies when they are gone.
        """
        if adapter is None:
            return
        if not self._knows(adapter):
            raise self._not_loaded(adapter)
        if not (self._known[adapter].folder / WEIGHTS).is_file():
            raise GenerationFailed(
                f"adapter: the files of '{adapter}' are gone from {self._known[adapter].folder}. Put them back, or "
                "unload it.",
                field="adapter",
                value=adapter,
            )

    def _not_loaded(self, adapter: str) -> GenerationFailed:
        return GenerationFailed(
            f"adapter: '{adapter}' is not loaded in the engine at {self._wire.url}. Load it first.",
            field="adapter",
            value=adapter,
        )

    async def _restore(self, adapter: str | None) -> None:
        if adapter is None or not self._knows(adapter) or self._known[adapter].registered:
            return
        try:
            await self.load(adapter, self._known[adapter].folder)
        except AdapterError as error:
            raise GenerationFailed(
                f"The engine lost '{adapter}' and did not take it again: {error}"
            ) from error

    def _failure(self, refusal: Refused, adapter: str | None) -> GenerationFailed:
        if refusal.status == 404 and adapter:
            return self._not_loaded(adapter)
        kind = PromptRefused if refusal.status in (400, 413, 422) else GenerationFailed
        return kind(
            f"The engine at {self._wire.url} refused: {refusal.message} (HTTP {refusal.status}).",
            field=refusal.param,
        )

    # --- adapters

    def _entry(self, name: str) -> _Entry:
        entry = self._known.get(name)
        if entry is None or not entry.registered:
            raise AdapterError(
                f"adapter: '{name}' is not loaded: load it first.", field="adapter", value=name
            )
        return entry

    def _shown(self, name: str) -> Loaded:
        entry = self._known.get(name)
        return Loaded(name, "vram", exact=False, pinned=entry is not None and entry.pinned)

    async def _pinnable(self) -> int:
        """Slots that may be pinned: one stays for the others, and one for the base on a CPU before 0.33."""
        if self._slots is None:
            return 0
        version = str((await self._wire.get("/version")).json()["version"])
        mixes_up_base = "cpu" in version and _numbers(version) < (0, 33)
        return max(self._slots - (2 if mixes_up_base else 1), 0)

    async def _register(self, name: str, folder: Path) -> int | None:
        """The id the server gave, None where it does not show ids.

        Ids count up and failed or given up loads burn some, so the newest one never seen before is ours. A
        load without a new id means that the server has restarted unnoticed and counts from 1 again.
        """
        for _ in range(2):
            self._seen |= await self._host_ids() or set()
            await self._order_load(name, folder)
            ids = await self._host_ids()
            if ids is None:
                return None
            new = ids - self._seen
            self._seen |= new
            if new:
                return max(new)
            self._lost()
            await self._forget(name)
        return None

    async def _order_load(self, name: str, folder: Path) -> None:
        """A name the server knew before is loaded anew, to learn its id."""
        body = {"lora_name": name, "lora_path": str(folder)}
        try:
            await self._wire.post("/v1/load_lora_adapter", body, seconds=self._timeouts.total)
        except Refused as refusal:
            if "already been loaded" not in refusal.message:
                raise _load_error(name, folder, refusal) from refusal
            await self._adopt(name, folder)
            if self._has_rpc:
                await self._forget(name)
                await self._order_load(name, folder)

    async def _forget(self, name: str) -> bool:
        """Take the name out; the weights stay. False: the server did not know it."""
        try:
            await self._wire.post("/v1/unload_lora_adapter", {"lora_name": name})
        except Refused as refusal:
            if refusal.status != 404:
                raise AdapterError(f"The engine did not unload '{name}': {refusal.message}") from refusal
            return False
        return True

    async def _probe(self, name: str) -> None:
        """One token, because a load that was accepted may still not answer."""
        prompt = Prompt([{"role": "user", "content": "Hello"}], max_tokens=1)
        try:
            async for _ in self._answer(prompt, name):
                pass
        except (Refused, GenerationFailed) as error:
            await self._forget(name)
            raise AdapterError(
                f"The engine took '{name}' but does not answer with it: {error}", field="adapter", value=name
            ) from error

    async def _adopt(self, name: str, folder: Path) -> None:
        """The server knew the name before this process: good only if it means the same files."""
        roots = [row.get("root") for row in await self._models() if row["id"] == name]
        if roots != [str(folder)]:
            raise AdapterError(
                f"adapter: the engine already serves '{name}' from {roots}, not from {folder}. "
                "Unload that one or restart the engine.",
                field="adapter",
                value=name,
            )

    def _is_resident(self, name: str, host_ids: set[int] | None) -> bool:
        entry = self._known.get(name)
        return host_ids is None or entry is None or entry.lora_id is None or entry.lora_id in host_ids

    def _lost(self) -> None:
        """The server died or restarted: nothing is resident and its ids start again."""
        self.restarts += any(entry.registered for entry in self._known.values())
        self._known = {
            name: replace(entry, registered=False, lora_id=None, pinned=False)
            for name, entry in self._known.items()
        }
        self._seen.clear()
        self._served = None

    # --- the server

    async def _models(self) -> list[Json]:
        try:
            rows = (await self._wire.get("/v1/models")).json()["data"]
            return [row for row in rows if isinstance(row["id"], str)]
        except Refused as refusal:
            raise GenerationFailed(f"The engine at {self._wire.url} refused: {refusal.message}") from refusal
        except (ValueError, KeyError, TypeError) as error:
            raise EngineDown(f"At {self._wire.url} something answers that is not a model server.") from error

    async def _host_ids(self) -> set[int] | None:
        """Ids in the server's host cache, None without the development RPC."""
        results = await self._rpc("list_loras")
        return None if results is None else {int(lora_id) for worker in results for lora_id in worker}

    async def _rpc(self, method: str, *args: int) -> list[list[int]] | None:
        if self._has_rpc is False:
            return None
        try:
            answer = await self._wire.post("/collective_rpc", {"method": method, "args": list(args)})
        except Refused as refusal:
            if self._has_rpc or refusal.status not in (401, 403, 404, 405):
                raise EngineError(f"The engine's RPC {method} failed: {refusal.message}") from refusal
            self._has_rpc = False
            return None
        self._has_rpc = True
        results: list[list[int]] = answer.json()["results"]
        return results


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _absolute(folder: Path) -> Path:
    """A link stays a link: what it points to may change while the name is registered."""
    return folder.absolute()


def _load_error(name: str, folder: Path, refusal: Refused) -> AdapterError:
    if "All items are pinned" in refusal.message:
        return NoRoom(f"No slot for '{name}': every adapter in the engine is pinned. Unload one.")
    if refusal.status == 404 and "No adapter" not in refusal.message:
        way = "Start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora."
    else:
        way = "Check the folder, and that the engine sees it under the same path."
    return AdapterError(
        f"The engine did not load '{name}' from {folder}: {refusal.message}. {way}",
        field="adapter",
        value=name,
    )


class _Flights:
    """Generations under way per adapter: its weights may be removed only when there are none."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._landed: dict[str, asyncio.Event] = {}

    @contextmanager
    def of(self, adapter: str | None) -> Iterator[None]:
        if adapter is None:
            yield
            return
        self._count[adapter] = self._count.get(adapter, 0) + 1
        try:
            yield
        finally:
            self._count[adapter] -= 1
            if not self._count[adapter]:
                del self._count[adapter]
                self._landed.pop(adapter, asyncio.Event()).set()

    async def landed(self, adapter: str) -> None:
        if adapter in self._count:
            await self._landed.setdefault(adapter, asyncio.Event()).wait()
