"""The driver of llama.cpp's server: GGUF adapters that it was started with, scaled per request."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from agentflow.errors import AdapterError, EngineDown, EngineError, GenerationFailed
from agentflow.protocols import Capabilities, EngineTier, Health, Loaded, Piece, Prompt
from agentflow.speech import chat
from agentflow.speech.names import Names, no_host_tier, no_pins, role_of
from agentflow.speech.wire import Refused, Timeouts, Wire
from agentflow.turn import Json


class LlamaCpp:
    """Started with `--lora a.gguf,b.gguf --lora-init-without-apply`; their order makes their ids.

    An adapter is found by a GGUF file in its own folder, or one named after its role. All of them are resident
    for the server's life, and a request that names no scales gets them all at once: every request names every
    scale.
    """

    name = "llamacpp"
    capabilities = Capabilities(
        runtime_load=False,
        unload_frees=False,
        pin=False,
        exact_list=True,
        mixed_batch=False,
        tools=True,
        structured=True,
        opens_folders=False,
    )
    restarts = 0

    def __init__(self, url: str, *, api_key: str | None = None, timeouts: Timeouts | None = None) -> None:
        self._wire = Wire(url, api_key, timeouts or Timeouts(), self._down)
        self._names = Names(self._wire.url)
        self._paths: list[str] | None = None

    async def generate(self, prompt: Prompt, *, adapter: str | None) -> AsyncGenerator[Piece, None]:
        self._names.check(adapter)
        asked = await self._body(prompt, adapter)
        async with aclosing(chat.generation(self._wire, asked, adapter)) as pieces:
            async for piece in pieces:
                yield piece

    async def load(self, name: str, folder: Path, *, tier: EngineTier = "vram") -> None:
        """Find it among the server's adapters and hear one token. Raises AdapterError."""
        no_host_tier("llama.cpp", tier)
        if self._names.has(name, folder):
            return
        self._paths = await self._adapters()
        if _place(name, folder, self._paths) is None:
            raise AdapterError(
                f"The engine does not have '{name}': it was started with {self._paths or 'no adapters'}. llama.cpp "
                f"reads GGUF, at its start only: convert {folder} with its convert_lora_to_gguf.py, keep the file in "
                f"that folder or call it {role_of(name)}.gguf, and start llama-server with --lora FILE,... "
                "--lora-init-without-apply.",
                field="adapter",
                value=name,
            )
        self._names.add(name, folder)
        try:
            await chat.listened(chat.answer(self._wire, await self._body(chat.ONE_TOKEN, name)))
        except (Refused, GenerationFailed) as error:
            self._names.drop(name)
            raise AdapterError(
                f"The engine does not answer with '{name}': {error}", field="adapter"
            ) from error

    async def unload(self, name: str) -> None:
        """Its scale is 0 from now on; llama.cpp cannot let go of it."""
        self._names.drop(name)

    async def pin(self, name: str) -> None:
        raise no_pins("llama.cpp", name)

    async def unpin(self, name: str) -> None:
        """Nothing was pinned."""

    async def loaded(self) -> Sequence[Loaded]:
        self._paths = await self._adapters()
        return [
            Loaded(name, "vram", exact=True) for name in self._names.loaded if self._has(name, self._paths)
        ]

    async def health(self) -> Health:
        try:
            await self._wire.get("/health")
            count = len(await self._adapters())
        except EngineError as error:
            return Health(ok=False, detail=error.message)
        return Health(ok=True, detail=f"llama.cpp at {self._wire.url} with {count} adapters")

    async def close(self) -> None:
        await self._wire.close()

    def _down(self) -> None:
        """It may come back with other adapters under the same ids."""
        self._paths = None

    def _has(self, name: str, paths: list[str]) -> bool:
        return _place(name, self._names.folder(name), paths) is not None

    async def _body(self, prompt: Prompt, adapter: str | None) -> Json:
        if self._paths is None:
            self._paths = await self._adapters()
        wanted = _place(adapter, self._names.folder(adapter), self._paths) if adapter else None
        if adapter and wanted is None:
            raise self._names.missing(adapter)
        scales = [{"id": place, "scale": float(place == wanted)} for place in range(len(self._paths))]
        return chat.body(prompt, "default") | {"lora": scales}

    async def _adapters(self) -> list[str]:
        """The server's adapter files in the order of their ids."""
        try:
            rows: list[dict[str, Any]] = (await self._wire.get("/lora-adapters")).json()
            return [str(row["path"]) for row in sorted(rows, key=lambda row: int(row["id"]))]
        except Refused as refusal:
            raise GenerationFailed(f"The engine at {self._wire.url} refused: {refusal.message}") from refusal
        except (ValueError, KeyError, TypeError) as error:
            raise EngineDown(
                f"At {self._wire.url} something answers that is not llama.cpp's server."
            ) from error


def _place(name: str, folder: Path, paths: list[str]) -> int | None:
    """The id of the adapter's file: one in its folder, or one called as the adapter or its role."""
    home = folder.resolve()
    for place, path in enumerate(paths):
        if Path(path).parent.resolve() == home or Path(path).stem in (name, role_of(name)):
            return place
    return None
