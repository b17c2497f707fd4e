"""What a vLLM server tells of itself: names, ids in its host cache, and how it was started."""

import re
from dataclasses import dataclass
from typing import Any

from agentflow.errors import EngineDown, EngineError, GenerationFailed
from agentflow.speech.wire import Refused, Wire
from agentflow.turn import Json


@dataclass(frozen=True)
class Started:
    """How the server was started: its LoRA limits, and whether it is of the kind that mixes up base answers.

    A CPU server before 0.33 whose slots are all taken answers base requests beside adapter requests in the
    voice of the last slot (vllm#48421), so one slot must stay empty there.
    """

    version: str
    max_loras: int
    max_rank: int
    mixes_up_base: bool

    @property
    def usable(self) -> int:
        """Adapters that may be active at once."""
        return self.max_loras - (1 if self.mixes_up_base else 0)

    @property
    def pinnable(self) -> int:
        """Pins that leave a slot for the others: with all slots pinned the next request ends the server."""
        return max(self.usable - 1, 0)


class Server:
    """Questions to one server. The development RPC is looked for once and remembered."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.has_rpc: bool | None = None

    async def models(self) -> list[Json]:
        """Raises EngineDown where something else listens, GenerationFailed where it refuses."""
        try:
            rows = (await self._wire.get("/v1/models")).json()["data"]
            return [row for row in rows if isinstance(row["id"], str)]
        except Refused as refusal:
            raise GenerationFailed(f"The engine at {self._wire.url} refused: {refusal.message}") from refusal
        except (ValueError, KeyError, TypeError) as error:
            raise EngineDown(f"At {self._wire.url} something answers that is not a model server.") from error

    async def version(self) -> str:
        return str((await self._wire.get("/version")).json()["version"])

    async def host_ids(self) -> set[int] | None:
        """Ids in the server's host cache, None without the development RPC."""
        results = await self.rpc("list_loras")
        return None if results is None else {int(lora_id) for worker in results for lora_id in worker}

    async def started(self) -> Started | None:
        """How it was started, None without the development mode or without LoRA."""
        if await self.host_ids() is None:
            return None
        told = (await self._wire.get("/server_info?config_format=json")).json()["vllm_config"]
        lora: dict[str, Any] = told.get("lora_config") or {}
        if not lora:
            return None
        version = await self.version()
        on_cpu = (told.get("device_config") or {}).get("device") == "cpu"
        return Started(
            version,
            int(lora["max_loras"]),
            int(lora["max_lora_rank"]),
            mixes_up_base=on_cpu and _numbers(version) < (0, 33),
        )

    async def rpc(self, method: str, *args: int) -> list[list[int]] | None:
        """One answer per worker, None where the server offers no RPC."""
        if self.has_rpc is False:
            return None
        try:
            answer = await self._wire.post("/collective_rpc", {"method": method, "args": list(args)})
        except Refused as refusal:
            if self.has_rpc or refusal.status not in (401, 403, 404, 405):
                raise EngineError(f"The engine's RPC {method} failed: {refusal.message}") from refusal
            self.has_rpc = False
            return None
        self.has_rpc = True
        results: list[list[int]] = answer.json()["results"]
        return results


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
