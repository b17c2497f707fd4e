"""The adapters of a local model: who speaks, who rests in RAM, and who leaves once nobody is heard with it."""

from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agentflow.engines.local.answer import BASE_VOICE
from agentflow.errors import AdapterError, AgentflowError, EngineDown, StartError
from agentflow.protocols import EngineTier

if TYPE_CHECKING:
    from agentflow.engines.local.model import Model, Weights


@dataclass(frozen=True)
class Load:
    """Order: bring an adapter to a tier, from its folder or from the other tier."""

    name: str
    folder: Path
    tier: EngineTier
    done: "Future[None]"


@dataclass(frozen=True)
class Unload:
    """Order: free an adapter once its answers are given."""

    name: str
    done: "Future[None]"


@dataclass(frozen=True)
class Voice:
    """A loaded adapter: where it came from, and what the model calls it."""

    folder: Path
    name: str


@dataclass(frozen=True)
class Resting:
    """An adapter whose weights wait in RAM."""

    folder: Path
    weights: "Weights"


@dataclass(frozen=True)
class _Leaver:
    """A voice that has left and is still heard; `work` is done after its last answer."""

    voice: str
    done: "Future[None]"
    work: Callable[[], None]


class Voices:
    """Changed by the thread that owns the model; others may read `speaking` and `resting`."""

    def __init__(self) -> None:
        self.speaking: dict[str, Voice] = {}
        self.resting: dict[str, Resting] = {}
        self._leaving: list[_Leaver] = []

    @property
    def somebody_leaves(self) -> bool:
        return bool(self._leaving)

    def of(self, adapter: str | None) -> Voice | None:
        """What an answer speaks with; None for an adapter that is not loaded."""
        return self.speaking.get(adapter) if adapter else Voice(Path(), BASE_VOICE)

    def move(self, order: Load, model: "Model") -> None:
        """Down to RAM after the adapter's last answer, up to the model at once."""
        voice = self.speaking.get(order.name)
        if order.tier == "ram" and voice is not None and voice.folder == order.folder:
            del self.speaking[order.name]
            work = partial(self._lower, order.name, voice, model)
            self._leaving.append(_Leaver(voice.name, order.done, work))
        elif order.tier == "ram":
            _fulfil(order.done, partial(self._rest, order.name, order.folder, model))
        else:
            _fulfil(order.done, partial(self._load, order.name, order.folder, model))

    def leave(self, order: Unload, model: "Model") -> None:
        """Out of the model after the last answer, and out of RAM."""
        self.resting.pop(order.name, None)
        voice = self.speaking.pop(order.name, None)
        if voice:
            self._leaving.append(_Leaver(voice.name, order.done, partial(model.unload, voice.name)))
        else:
            order.done.set_result(None)

    def free(self, busy: Collection[str]) -> None:
        """Those that left go when nobody speaks with them any more; `busy` names who is still heard."""
        ready = [leaver for leaver in self._leaving if leaver.voice not in busy]
        self._leaving = [leaver for leaver in self._leaving if leaver.voice in busy]
        for leaver in ready:
            _fulfil(leaver.done, leaver.work)

    def end(self) -> None:
        """The model goes, and everybody with it."""
        for leaver in self._leaving:
            leaver.done.set_result(None)

    def _load(self, name: str, folder: Path, model: "Model") -> None:
        self._check_folder(name, folder)
        if name in self.speaking:
            return
        resting = self.resting.get(name)
        voice = model.attach(resting.weights) if resting else model.load(folder)
        self.speaking[name] = Voice(folder, voice)
        self.resting.pop(name, None)

    def _rest(self, name: str, folder: Path, model: "Model") -> None:
        self._check_folder(name, folder)
        if name not in self.resting:
            self.resting[name] = Resting(folder, model.read(folder))

    def _lower(self, name: str, voice: Voice, model: "Model") -> None:
        """Unless it was loaded again meanwhile."""
        try:
            if name not in self.speaking:
                self.resting[name] = Resting(voice.folder, model.weights(voice.name))
        finally:
            model.unload(voice.name)

    def _check_folder(self, name: str, folder: Path) -> None:
        known = self.speaking.get(name) or self.resting.get(name)
        if known is not None and known.folder != folder:
            raise AdapterError(
                f"adapter: '{name}' was loaded from {known.folder} and cannot come from {folder} too. "
                "Give the new files a new name.",
                field="adapter",
                value=name,
            )


def _fulfil(done: "Future[None]", work: Callable[[], None]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        work()
    except Exception as error:  # noqa: BLE001 - whoever gave the order gets it
        done.set_exception(as_agentflow(error))
    else:
        done.set_result(None)


def as_agentflow(error: Exception) -> AgentflowError:
    """A fault of the model or of its libraries, in our words."""
    if isinstance(error, AgentflowError):
        return error
    if isinstance(error, ImportError):
        return StartError(
            f"The local engine needs torch, transformers and peft ({error}). Install them with "
            "pip install 'agentflow[local]' (the CPU build of torch suffices), or set model.engine to vllm.",
            field="model.engine",
            value="local",
        )
    return EngineDown(f"The local engine failed: {error!r}")
