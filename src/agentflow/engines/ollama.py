"""The driver of an Ollama server: an adapter is a model of its own, created from the base."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from agentflow.adapters import CONFIG, WEIGHTS
from agentflow.errors import AdapterError, EngineError, GenerationFailed
from agentflow.protocols import Capabilities, EngineTier, Health, Loaded, Piece, Prompt
from agentflow.speech import chat
from agentflow.speech.names import Names, no_host_tier, role_of
from agentflow.speech.wire import Refused, Timeouts, Wire
from agentflow.turn import Json, Usage


class Ollama:
    """`base` is Ollama's name of the base model, such as llama3.2. Files are uploaded: no path is shared.

    Ollama takes safetensors adapters for Llama, Mistral and Gemma; for other families the adapter's folder must
    hold a GGUF file, which is preferred. It unloads by itself after `keep_alive` and reads again on demand.
    """

    name = "ollama"
    capabilities = Capabilities(
        runtime_load=True,
        unload_frees=True,
        pin=True,
        exact_list=True,
        mixed_batch=False,
        opens_folders=False,
    )
    restarts = 0

    def __init__(
        self, url: str, *, base: str, api_key: str | None = None, timeouts: Timeouts | None = None
    ) -> None:
        self._limits = timeouts or Timeouts()
        self._wire = Wire(url, api_key, self._limits, _nothing)
        self._names = Names(self._wire.url)
        self._base = base
        self._pinned: set[str] = set()
        self._loading = asyncio.Lock()

    async def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece, None]:
        self._names.check(adapter)
        try:
            async with aclosing(self._answer(prompt, adapter)) as pieces:
                async for piece in pieces:
                    yield piece
        except Refused as refusal:
            raise chat.refused(self._wire.url, refusal, adapter) from refusal

    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None:
        """Upload, create, and hear one token. Raises AdapterError."""
        no_host_tier("Ollama", tier)
        async with self._loading:
            if self._names.has(name, folder):
                return
            try:
                await self._create(name, folder)
                await chat.listened(self._answer(chat.ONE_TOKEN, name))
            except (Refused, GenerationFailed) as refusal:
                raise AdapterError(
                    f"The engine did not take '{name}' from {folder}: {refusal.message}. Ollama takes safetensors "
                    "adapters for Llama, Mistral and Gemma only; for other bases put a GGUF made by llama.cpp's "
                    f"convert_lora_to_gguf.py into the folder. The base is model.base = {self._base}.",
                    field="adapter",
                    value=name,
                ) from refusal
            self._names.add(name, folder)

    async def unload(self, name: str) -> None:
        """Out of memory; Ollama keeps the created model on its disk."""
        self._names.drop(name)
        self._pinned.discard(name)
        await self._keep(name, 0)

    async def pin(self, name: str) -> None:
        if name not in self._names.loaded:
            raise AdapterError(
                f"adapter: '{name}' is not loaded: load it first.", field="adapter", value=name
            )
        self._pinned.add(name)
        await self._keep(name, -1)

    async def unpin(self, name: str) -> None:
        if name in self._pinned:
            self._pinned.discard(name)
            await self._keep(name, "5m")

    async def loaded(self) -> Sequence[Loaded]:
        """What is in memory now: some may have left by themselves and will come back when asked."""
        rows: list[dict[str, Any]] = (await self._wire.get("/api/ps")).json().get("models") or []
        sizes = {str(row.get("model") or row["name"]): int(row.get("size_vram") or 0) for row in rows}
        present = [name for name in self._names.loaded if _model(name) in sizes]
        return [
            Loaded(name, "vram" if sizes[_model(name)] else "ram", exact=True, pinned=name in self._pinned)
            for name in present
        ]

    async def health(self) -> Health:
        try:
            version = (await self._wire.get("/api/version")).json().get("version")
        except EngineError as error:
            return Health(ok=False, detail=error.message)
        return Health(ok=True, detail=f"Ollama {version} at {self._wire.url}")

    async def close(self) -> None:
        await self._wire.close()

    # --- models

    async def _create(self, name: str, folder: Path) -> None:
        files = await asyncio.to_thread(_files, folder)
        if not files:
            raise AdapterError(f"adapter: {folder} holds no adapter.", field="adapter", value=name)
        for file, digest in files.items():
            if not await self._wire.head(f"/api/blobs/{digest}"):
                await self._wire.upload(f"/api/blobs/{digest}", file)
        adapters = {file.name: digest for file, digest in files.items()}
        asked = {"model": _model(name), "from": self._base, "adapters": adapters, "stream": False}
        await self._wire.post("/api/create", asked, seconds=self._limits.total)

    async def _keep(self, name: str, keep_alive: int | str) -> None:
        """A chat without messages only sets how long the model stays."""
        asked: Json = {"model": _model(name), "messages": [], "keep_alive": keep_alive, "stream": False}
        try:
            await self._wire.post("/api/chat", asked, seconds=self._limits.total)
        except Refused as refusal:
            if refusal.status != 404:
                raise AdapterError(f"The engine did not keep '{name}': {refusal.message}") from refusal

    # --- answers

    async def _answer(self, prompt: Prompt, adapter: str | None) -> AsyncGenerator[Piece, None]:
        asked = self._body(prompt, _model(adapter) if adapter else self._base)
        if adapter in self._pinned:
            asked["keep_alive"] = -1  # every request sets the time anew
        async with aclosing(self._wire.lines("/api/chat", asked)) as lines:
            async for line in lines:
                try:
                    piece = _heard(line)
                except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
                    raise GenerationFailed(f"The engine sent a line that is no answer: {error!r}") from error
                if piece.text or piece.finish:
                    yield piece
                if piece.finish:
                    return
        raise GenerationFailed("The engine broke off the answer before its end.", retry_after=1)

    def _body(self, prompt: Prompt, model: str) -> Json:
        options: Json = {
            "num_predict": prompt.max_tokens,
            "temperature": prompt.temperature,
            "top_p": prompt.top_p,
            "stop": list(prompt.stop),
        }
        if prompt.seed is not None:
            options["seed"] = prompt.seed
        return {"model": model, "messages": list(prompt.messages), "stream": True, "options": options}


def _heard(line: Json) -> Piece:
    text = str((line.get("message") or {}).get("content") or "")
    if not line.get("done"):
        return Piece(text)
    usage: Usage = {
        "prompt_tokens": int(line.get("prompt_eval_count") or 0),
        "completion_tokens": int(line.get("eval_count") or 0),
    }
    return Piece(text, "length" if line.get("done_reason") == "length" else "stop", usage)


def _files(folder: Path) -> dict[Path, str]:
    """What is uploaded, with its digest: a GGUF file if there is one, else weights and configuration."""
    gguf = sorted(folder.glob("*.gguf"))[:1]
    plain = [folder / name for name in (WEIGHTS, CONFIG) if (folder / name).is_file()]
    return {file: _digest(file) for file in gguf or plain}


def _digest(file: Path) -> str:
    with file.open("rb") as source:
        return f"sha256:{hashlib.file_digest(source, 'sha256').hexdigest()}"


def _model(name: str) -> str:
    """Ollama's names are lower case, with the digest as tag."""
    plain = re.sub(r"[^a-z0-9._-]", "-", role_of(name).lower())
    return f"agentflow-{plain}:{name.partition('@')[2] or 'latest'}"


def _nothing() -> None:
    """A restarted Ollama keeps its models and reads them again on demand."""
