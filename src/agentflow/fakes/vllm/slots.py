"""The tiers of vLLM 0.32 as a plain state machine: ids, host cache, device slots, pins."""

from collections import OrderedDict
from pathlib import Path

WEIGHTS = "adapter_model.safetensors"


class PinnedError(Exception):
    """Every slot is pinned."""


class FilesGoneError(Exception):
    """An adapter has to be read again and its files are gone."""


class Slots:
    """`slots` device places and `host` places in RAM, both least recently used first out.

    What unload forgets stays in both until it is pushed out or removed by id.
    """

    def __init__(self, slots: int, host: int) -> None:
        self._host_size = host
        self._last_id = 0
        self._host: OrderedDict[int, Path] = OrderedDict()
        self._slots: list[int | None] = [None] * slots
        self._used: OrderedDict[int, None] = OrderedDict()
        self._pinned: set[int] = set()

    @property
    def size(self) -> int:
        return len(self._slots)

    @property
    def in_host_cache(self) -> list[int]:
        return sorted(self._host)

    @property
    def in_slots(self) -> list[int | None]:
        """Ids by place."""
        return list(self._slots)

    def new_id(self) -> int:
        """The next id; failed loads burn theirs."""
        self._last_id += 1
        return self._last_id

    def activate(self, lora_id: int, folder: Path) -> None:
        """Bring an adapter into host cache and slot. Raises PinnedError, FilesGoneError."""
        if lora_id not in self._host and not (folder / WEIGHTS).is_file():
            raise FilesGoneError(str(folder))
        if lora_id not in self._used:
            self._take_slot(lora_id)
        self._used.move_to_end(lora_id)
        self._host[lora_id] = folder
        self._host.move_to_end(lora_id)
        while len(self._host) > self._host_size:
            self.remove(next(known for known in self._host if known not in self._pinned))

    def pin(self, lora_id: int) -> None:
        """Raises KeyError for an id outside the host cache."""
        self.activate(lora_id, self._host[lora_id])
        self._pinned.add(lora_id)

    def remove(self, lora_id: int) -> bool:
        """Free everything the id holds, a pin too."""
        known = self._host.pop(lora_id, None) is not None
        if lora_id in self._used:
            self._leave_slot(lora_id)
        self._pinned.discard(lora_id)
        return known

    def _take_slot(self, lora_id: int) -> None:
        if None not in self._slots:
            oldest = next((known for known in self._used if known not in self._pinned), None)
            if oldest is None:
                raise PinnedError
            self._leave_slot(oldest)
        self._slots[self._slots.index(None)] = lora_id
        self._used[lora_id] = None

    def _leave_slot(self, lora_id: int) -> None:
        del self._used[lora_id]
        self._slots[self._slots.index(lora_id)] = None
