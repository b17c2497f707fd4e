"""The machine's memory, watched: what fills up makes adapters leave before anything breaks."""

from dataclasses import asdict
from pathlib import Path

from agentflow.errors import AgentflowError
from agentflow.machine import Gpus, Room, disk, ram
from agentflow.residency.keeper import AdapterKeeper
from agentflow.residency.report import table
from agentflow.turn import Json


class Watching:
    """Looks at VRAM, RAM, the memory file system and the disk, and tells the keeper.

    `memory` is the folder of copies in memory, `cache` the one of fetched adapters; None: there is none. The
    keeper frees VRAM only for an engine that frees what it unloads.
    """

    def __init__(
        self, keeper: AdapterKeeper, *, memory: Path | None, cache: Path, gpus: Gpus | None = None
    ) -> None:
        self.keeper = keeper
        self._memory = memory
        self._cache = cache
        self._gpus = gpus or Gpus()

    async def look(self) -> None:
        """One look."""
        shares = [room.share for room in self._rooms_of_ram()]
        self.keeper.squeeze("ram", max(shares))
        able = self.keeper.engine.capabilities
        gpus = [room.share for room in self._gpus.rooms()]
        if gpus and able.unload_frees and able.host_tier:
            self.keeper.squeeze("vram", max(gpus))

    async def report(self) -> Json:
        """Engine, tiers with what they may and do hold, machine, and a row per adapter."""
        health = await self.keeper.engine.health()
        return {
            "engine": {
                "name": self.keeper.engine.name,
                "ok": health.ok,
                "detail": health.detail,
                "restarts": self.keeper.tally.restarts,
                "foreign_adapters": self.keeper.tally.foreign,
            },
            "tiers": self.keeper.capacities(),
            "machine": {
                "vram": [_told(room) for room in self._gpus.rooms()] or self._gpus.absence,
                "ram": [_told(room) for room in self._rooms_of_ram()],
                "disk": _told(disk(self._cache)),
            },
            "adapters": table(self.keeper),
            "unusable": {
                role: one.message
                for role, one in self.keeper.roster.items()
                if isinstance(one, AgentflowError)
            },
        }

    def close(self) -> None:
        """Let go of the driver."""
        self._gpus.close()

    def _rooms_of_ram(self) -> list[Room]:
        return [ram()] if self._memory is None else [ram(), disk(self._memory)]


def _told(room: Room) -> Json:
    return {**asdict(room), "share": round(room.share, 3)}
