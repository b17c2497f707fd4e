"""What memory the machine has: VRAM by NVML (extra `gpu`), RAM, and the disks that adapters lie on."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Room:
    """A kind of memory, in bytes. `used` counts everybody, not only us."""

    name: str
    total: int
    used: int

    @property
    def share(self) -> float:
        return self.used / self.total if self.total else 0.0


class Gpus:
    """VRAM of NVIDIA GPUs. Without driver or library there are none, and `absence` says why.

    `nvml` is the module pynvml, None: import it.
    """

    def __init__(self, nvml: Any = None) -> None:
        self.absence: str | None = None
        self._nvml = nvml
        self._handles: list[Any] = []
        try:
            self._open()
        except ImportError:
            self.absence = "VRAM is not watched: pip install 'agentflow[gpu]'"

    def rooms(self) -> list[Room]:
        """One per GPU."""
        return [self._room(number, handle) for number, handle in enumerate(self._handles)]

    def close(self) -> None:
        """Let go of the driver."""
        if self._handles:
            self._nvml.nvmlShutdown()
            self._handles = []

    def _open(self) -> None:
        if self._nvml is None:
            import pynvml  # noqa: PLC0415 - an extra

            self._nvml = pynvml
        try:
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
        except self._nvml.NVMLError as error:
            self.absence = f"VRAM is not watched: no NVIDIA driver ({error})"

    def _room(self, number: int, handle: Any) -> Room:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return Room(f"gpu {number}", int(memory.total), int(memory.used))


def ram() -> Room:
    """The machine's memory; what caches would give back counts as free."""
    memory = psutil.virtual_memory()
    return Room("ram", memory.total, memory.total - memory.available)


def disk(folder: Path) -> Room:
    """The file system of a folder, or of the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return Room(str(folder), usage.total, usage.used)
