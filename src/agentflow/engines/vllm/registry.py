"""The driver's own ledger of adapters, because vLLM shows no residency and frees nothing on unload.

It forgets every runtime adapter when it restarts, too (vllm#54839, #45325, #12174). So the ledger keeps name,
folder, id and pin of all that was loaded here, and knows what the server must not be asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agentflow.adapters import WEIGHTS
from agentflow.engines.vllm.server import Server, Started
from agentflow.errors import AdapterError, AgentflowError, EngineTimeout, GenerationFailed, NoRoom
from agentflow.protocols import Loaded
from agentflow.speech.chat import not_loaded
from agentflow.speech.wire import Refused, Timeouts, Wire


@dataclass(frozen=True)
class Entry:
    """A name that was loaded here. `wanted` until unloaded, `registered` while the server should know it."""

    folder: Path
    lora_id: int | None
    wanted: bool = True
    registered: bool = True
    pinned: bool = False


class Registry:
    """`probe` asks the server for one token of a name; `slots` is how many adapters will be loaded at once."""

    def __init__(
        self,
        wire: Wire,
        server: Server,
        timeouts: Timeouts,
        probe: Callable[[str], Awaitable[None]],
        slots: int | None,
    ) -> None:
        self._wire = wire
        self._server = server
        self._timeouts = timeouts
        self._probe = probe
        self._slots = slots
        self._lock = asyncio.Lock()
        self._known: dict[str, Entry] = {}
        self._seen: set[int] = set()
        self.restarts = 0

    def folder(self, name: str) -> Path | None:
        """Where a wanted adapter lies."""
        entry = self._known.get(name)
        return entry.folder if entry and entry.wanted else None

    def lost(self) -> None:
        """The server died or restarted: nothing is resident and its ids start again."""
        self.restarts += any(entry.registered for entry in self._known.values())
        self._known = {
            name: replace(entry, registered=False, lora_id=None, pinned=False)
            for name, entry in self._known.items()
        }
        self._seen.clear()

    async def ready(self, name: str) -> None:
        """Make sure that the server may be asked for this adapter. Raises GenerationFailed.

        Only what was loaded here, and only while its files are there: the server reads them again when the
        adapter has left its cache, and dies when they are gone. What it has forgotten is registered again.
        """
        folder = self.folder(name)
        if folder is None:
            raise not_loaded(self._wire.url, name)
        if not (folder / WEIGHTS).is_file():
            raise GenerationFailed(
                f"adapter: the files of '{name}' are gone from {folder}. Put them back, or unload it.",
                field="adapter",
                value=name,
            )
        if self._known[name].registered:
            return
        try:
            await self.load(name, folder)
        except AdapterError as error:
            raise GenerationFailed(f"The engine lost '{name}' and did not take it again: {error}") from error

    async def load(self, name: str, folder: Path) -> None:
        """Register, activate and hear one token. Raises AdapterError, NoRoom when all slots are pinned."""
        home = _absolute(folder)
        async with self._lock:
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
            await self._load(name, home, entry)

    async def unload(self, name: str) -> int | None:
        """Take the name out; the id whose weights are left, where the server shows ids."""
        async with self._lock:
            entry = self._known.get(name)
            if entry:
                self._known[name] = replace(entry, wanted=False, registered=False, lora_id=None, pinned=False)
            was_there = await self._forget(name)
        return entry.lora_id if entry and was_there else None

    async def pin(self, name: str) -> None:
        """Raises NoRoom before the last free slot is pinned, AdapterError without the development RPC."""
        async with self._lock:
            entry = self._entry(name)
            started = await self._server.started()
            if started is None or entry.lora_id is None:
                raise AdapterError(
                    f"'{name}' cannot be pinned: the engine at {self._wire.url} offers no development RPC. Start "
                    "it with VLLM_SERVER_DEV_MODE=1 on a private address.",
                    field="pin",
                    value=name,
                )
            self._check_pins(name, entry, started)
            await self._server.rpc("pin_lora", entry.lora_id)
            self._known[name] = replace(entry, pinned=True)

    async def unpin(self, name: str) -> None:
        """The server has no such call: the adapter is taken out and read again by one token."""
        async with self._lock:
            entry = self._known.get(name)
            if entry is None or not entry.pinned or entry.lora_id is None:
                return
            await self._server.rpc("remove_lora", entry.lora_id)
            self._known[name] = replace(entry, pinned=False)
            await self._probe(name)

    async def loaded(self) -> Sequence[Loaded]:
        """Registered adapters, less those that left the host cache. The slot level is not told.

        Names whose load was given up here but went on there are taken out.
        """
        registered = [row["id"] for row in await self._server.models() if row.get("parent")]
        if any(entry.registered and name not in registered for name, entry in self._known.items()):
            self.lost()
        given_up = [name for name in registered if name in self._known and not self._known[name].wanted]
        if not self._lock.locked():
            for name in given_up:
                await self._forget(name)
        resident = await self._server.host_ids()
        shown = [name for name in registered if name not in given_up and self._is_resident(name, resident)]
        return [Loaded(name, "vram", exact=False, pinned=self._is_pinned(name)) for name in shown]

    # --- loading

    async def _load(self, name: str, home: Path, entry: Entry | None) -> None:
        """Meanwhile the name is known but not wanted: should we be cancelled, `loaded` takes it out."""
        await self._check_slots(name)
        self._known[name] = entry or Entry(home, None, wanted=False, registered=False)
        try:
            lora_id = await self._register(name, home)
            await self._heard(name)
        except AgentflowError as error:
            if entry is None and not isinstance(error, EngineTimeout):
                del self._known[name]
            raise
        self._known[name] = Entry(home, lora_id)

    async def _register(self, name: str, folder: Path) -> int | None:
        """The id the server gave, None where it does not show ids.

        Ids count up and failed or given up loads burn some, so the newest one never seen before is ours. A
        load without a new id means that the server has restarted unnoticed and counts from 1 again.
        """
        for _ in range(2):
            self._seen |= await self._server.host_ids() or set()
            await self._order(name, folder)
            ids = await self._server.host_ids()
            if ids is None:
                return None
            new = ids - self._seen
            self._seen |= new
            if new:
                return max(new)
            self.lost()
            await self._forget(name)
        return None

    async def _order(self, name: str, folder: Path) -> None:
        """A name the server knew before is loaded anew, to learn its id."""
        body = {"lora_name": name, "lora_path": str(folder)}
        try:
            await self._wire.post("/v1/load_lora_adapter", body, seconds=self._timeouts.total)
        except Refused as refusal:
            if "already been loaded" not in refusal.message:
                raise _load_error(name, folder, refusal) from refusal
            await self._adopt(name, folder)
            if self._server.has_rpc:
                await self._forget(name)
                await self._order(name, folder)

    async def _adopt(self, name: str, folder: Path) -> None:
        """The server knew the name before this process: good only if it means the same files."""
        roots = [row.get("root") for row in await self._server.models() if row["id"] == name]
        if roots != [str(folder)]:
            raise AdapterError(
                f"adapter: the engine already serves '{name}' from {roots}, not from {folder}. "
                "Unload that one or restart the engine.",
                field="adapter",
                value=name,
            )

    async def _heard(self, name: str) -> None:
        """One token, because a load that was accepted may still not answer."""
        try:
            await self._probe(name)
        except (Refused, GenerationFailed) as error:
            await self._forget(name)
            raise AdapterError(
                f"The engine took '{name}' but does not answer with it: {error}", field="adapter", value=name
            ) from error

    async def _forget(self, name: str) -> bool:
        """Take the name out; the weights stay. False: the server did not know it."""
        try:
            await self._wire.post("/v1/unload_lora_adapter", {"lora_name": name})
        except Refused as refusal:
            if refusal.status != 404:
                raise AdapterError(f"The engine did not unload '{name}': {refusal.message}") from refusal
            return False
        return True

    # --- limits

    async def _check_slots(self, name: str) -> None:
        """Refuse a configuration that would make a CPU server mix up voices."""
        if self._slots is None or self._known:
            return
        started = await self._server.started()
        if started is not None and started.mixes_up_base and self._slots > started.usable:
            raise AdapterError(
                f"adapter: '{name}' is not loaded: model.slots is {self._slots}, and vLLM {started.version} on a "
                f"CPU with --max-loras {started.max_loras} answers base requests in an adapter's voice when all "
                f"slots are taken (vllm#48421). Set model.slots to {started.usable}, or start the engine with "
                f"--max-loras {self._slots + 1}.",
                field="model.slots",
                value=self._slots,
            )

    def _check_pins(self, name: str, entry: Entry, started: Started) -> None:
        pinned = sum(one.pinned for one in self._known.values())
        if not entry.pinned and pinned >= started.pinnable:
            raise NoRoom(
                f"'{name}' cannot be pinned: {pinned} adapters are, and of its {started.max_loras} slots the engine "
                "needs the rest for the others, or it dies. Unpin one, or give it more --max-loras.",
                field="pin",
                value=name,
            )

    def _entry(self, name: str) -> Entry:
        entry = self._known.get(name)
        if entry is None or not entry.registered:
            raise AdapterError(
                f"adapter: '{name}' is not loaded: load it first.", field="adapter", value=name
            )
        return entry

    def _is_resident(self, name: str, host_ids: set[int] | None) -> bool:
        entry = self._known.get(name)
        return host_ids is None or entry is None or entry.lora_id is None or entry.lora_id in host_ids

    def _is_pinned(self, name: str) -> bool:
        return name in self._known and self._known[name].pinned


def _absolute(folder: Path) -> Path:
    """A link stays a link: what it points to may change while the name is registered."""
    return folder.absolute()


def _load_error(name: str, folder: Path, refusal: Refused) -> AdapterError:
    if "All items are pinned" in refusal.message:
        return NoRoom(f"No slot for '{name}': every adapter in the engine is pinned. Unload one.")
    if "max_lora_rank" in refusal.message:
        way = "Start it with a larger --max-lora-rank: `agentflow engine start` reads it from the adapters of the file."
    elif refusal.status == 404 and "No adapter" not in refusal.message:
        way = "Start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora."
    else:
        way = "Check the folder, and that the engine sees it under the same path."
    return AdapterError(
        f"The engine did not load '{name}' from {folder}: {refusal.message}. {way}",
        field="adapter",
        value=name,
    )
