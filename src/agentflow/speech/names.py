"""Which adapters were loaded through a driver, and from where: for servers that keep no such list."""

from pathlib import Path

from agentflow.errors import AdapterError, GenerationFailed
from agentflow.speech.chat import not_loaded


class Names:
    """A name never changes its folder: caches would answer with the old weights."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._folders: dict[str, Path] = {}
        self._loaded: dict[str, None] = {}

    @property
    def loaded(self) -> list[str]:
        return list(self._loaded)

    def folder(self, name: str) -> Path:
        return self._folders[name]

    def has(self, name: str, folder: Path) -> bool:
        """Whether it is loaded. Raises AdapterError for another folder than before, or one that is missing."""
        known = self._folders.get(name, folder)
        if known != folder:
            raise AdapterError(
                f"adapter: '{name}' was loaded from {known} and cannot come from {folder} too: caches would answer "
                "with the old weights. Give the new files a new name.",
                field="adapter",
                value=name,
            )
        if not folder.is_dir():
            raise AdapterError(f"adapter: there is no folder {folder}.", field="adapter", value=name)
        return name in self._loaded

    def add(self, name: str, folder: Path) -> None:
        self._folders[name] = folder
        self._loaded[name] = None

    def drop(self, name: str) -> None:
        self._loaded.pop(name, None)

    def forget(self) -> list[str]:
        """The server has lost everything; what it had."""
        lost, self._loaded = list(self._loaded), {}
        return lost

    def check(self, adapter: str | None) -> None:
        """Raises GenerationFailed for an adapter that is not loaded."""
        if adapter is not None and adapter not in self._loaded:
            raise self.missing(adapter)

    def missing(self, adapter: str) -> GenerationFailed:
        return not_loaded(self._url, adapter)


def role_of(name: str) -> str:
    """The role in `role@digest`."""
    return name.partition("@")[0]


def no_host_tier(engine: str, tier: str) -> None:
    """Raises AdapterError where an adapter shall rest in an engine's RAM that nobody can order."""
    if tier != "vram":
        raise AdapterError(f"adapter: {engine} has no place in RAM where an adapter could rest by order.")


def no_pins(engine: str, name: str) -> AdapterError:
    return AdapterError(
        f"'{name}' cannot be pinned: {engine} offers nothing of the kind.", field="pin", value=name
    )
