"""A changed file, taken over while turns go on."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import structlog

from agentflow import graph as graphs
from agentflow.errors import AdapterError, ConfigError
from agentflow.residency.roster import Roster
from agentflow.runs.registry import OWN
from agentflow.settings import Collection, Settings, load
from agentflow.turn import Json
from agentflow.wiring import choices
from agentflow.wiring.homes import vector_homes
from agentflow.wiring.place import Place, silent
from agentflow.wiring.roles import role_examples
from agentflow.wiring.services import Services

log = structlog.get_logger(__name__)
_AT_START = [name for name in Settings.model_fields if name not in ("roles", "router", "collections")]


class Rereading:
    """Takes changed roles, router settings and places of collections from the file while turns go on.

    The rest needs a new start.

    A file with mistakes, or with an adapter that cannot be used, changes nothing. Turns under way end with the
    roles they began with.
    """

    def __init__(self, services: Services, place: Place) -> None:
        self._services = services
        self._place = place
        self._seen = self._stamp()
        self._taking = asyncio.Lock()
        # Options of the command line are no change of the file.
        self._begun = place.settings if place.file is None else load(place.file, place.environment)

    async def look(self) -> None:
        """Read the file again if it has changed. Raises ConfigError, EmbedderError."""
        stamp = self._stamp()
        if self._place.file is None or stamp in (None, self._seen):
            return
        self._seen = stamp
        await self._take(await self._read(), adapters_too=False)

    async def now(self) -> Json:
        """Read file and adapters again, changed or not; what came of it. Raises ConfigError, EmbedderError."""
        self._seen = self._stamp()
        settings = self._services.settings if self._place.file is None else await self._read()
        return await self._take(settings, adapters_too=True)

    async def _read(self) -> Settings:
        if self._place.file is None:
            raise ConfigError("There is no file to read again.", field="config")
        settings = await asyncio.to_thread(load, self._place.file, self._place.environment)
        return settings.model_copy(update={"roles": {**settings.roles, **self._place.extra_roles}})

    async def _take(self, settings: Settings, *, adapters_too: bool) -> Json:
        async with self._taking:
            await self._move(settings)
            services, before = self._services, self._services.settings
            kept = before.model_copy(update={"roles": settings.roles, "router": settings.router})
            if kept != before or adapters_too:
                await self._change(kept)
            waiting = [name for name in _AT_START if _differs(name, settings, self._begun)]
            if waiting:
                log.warning("changed settings need a new start", settings=waiting)
            names = {name: services.keeper.identity(name) for name in kept.roles}
            return {"roles": names, "changed": _changed(before, kept), "needs_restart": waiting}

    async def _change(self, kept: Settings) -> None:
        services = self._services
        place = replace(self._place, settings=kept)
        found = await choices.adapters(place, silent, services.keeper.cached)
        _check(found, services.keeper.roster)
        roles = [role_examples(name, role) for name, role in kept.roles.items()]
        await services.classifier.replace(roles, kept.router)
        services.settings = kept
        services.keeper.adopt(found)
        services.needs = replace(services.needs, roles=roles, settings=kept)
        services.graph = services.worker.attempts.graph = graphs.build(services.needs)
        services.served.registry.replace(OWN, services.graph)
        log.info("roles read again", roles=list(kept.roles))

    async def _move(self, settings: Settings) -> None:
        """Collections whose place has changed move there, while the former one answers."""
        services = self._services
        former = services.settings.collections
        moving = {
            name: found
            for name, found in settings.collections.items()
            if name in former and _place_of(found) != _place_of(former[name])
        }
        homes = vector_homes(moving, self._place.folder, services.embedder.dim)
        for name, found in moving.items():
            log.info("a collection moves", collection=name, backend=found.backend)
            await services.places.move(name, homes.get(name), within=found.options.timeout)
        collections = {**former, **moving}
        services.settings = services.settings.model_copy(update={"collections": collections})

    def _stamp(self) -> tuple[int, int] | None:
        """When the file was written, and its size; None while an editor is replacing it."""
        try:
            state = None if self._place.file is None else self._place.file.stat()
        except FileNotFoundError:
            return None
        return None if state is None else (state.st_mtime_ns, state.st_size)


def _check(found: Roster, before: Roster) -> None:
    """Refuse what cannot be used, unless it could not be used before either."""
    broken = {
        role: one
        for role, one in found.items()
        if isinstance(one, AdapterError) and not isinstance(before.get(role), AdapterError)
    }
    if broken:
        listing = "\n".join(f"  roles.{role}: {error.message}" for role, error in broken.items())
        raise ConfigError(
            f"The changed roles cannot be used, so everything stays as it was:\n{listing}",
            field=f"roles.{next(iter(broken))}.lora_path",
        )


def _changed(before: Settings, after: Settings) -> Mapping[str, list[str]]:
    old, new = before.roles, after.roles
    return {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name] != old[name]],
    }


def _differs(name: str, wanted: Settings, running: Settings) -> bool:
    return bool(getattr(wanted, name) != getattr(running, name))


def _place_of(collection: Collection) -> tuple[object, ...]:
    return collection.backend, collection.location, collection.options
