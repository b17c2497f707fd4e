"""What is known of adapters that come from afar: fetched already, or what their source says of them."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

from agentflow.adapters import AdapterFiles
from agentflow.egress import shown
from agentflow.errors import AgentflowError, FetchFailed
from agentflow.shelves.disk import DiskCache
from agentflow.wiring.place import Place
from agentflow.wiring.residency import cache

Known = AdapterFiles | int | AgentflowError
"""Fetched files; else bytes (0: the source does not say); else why it cannot be had."""


async def reached(place: Place, *, look: bool) -> Mapping[str, Known]:
    """By address, for the remote adapters that roles name; what is not known is left out.

    Without `look` no source is asked: only the disk cache is read.
    """
    addresses = {
        role.lora_path for role in place.settings.roles.values() if role.lora_path and "://" in role.lora_path
    }
    if not addresses:
        return {}
    async with AsyncExitStack() as stack:
        disk = cache(place, stack)
        asked = sorted(addresses)
        found = await asyncio.gather(*(_known(disk, address, look=look) for address in asked))
    return {address: one for address, one in zip(asked, found, strict=True) if one is not None}


async def _known(disk: DiskCache, address: str, *, look: bool) -> Known | None:
    files = await asyncio.to_thread(disk.find, address)
    if files is not None or not look:
        return files
    try:
        return await disk.weigh(address)
    except AgentflowError as error:
        return error
    except TimeoutError:
        return FetchFailed(f"{shown(address)} does not answer. Check address and network.", field="lora_path")
