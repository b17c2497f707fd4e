"""Recorded turns as visits to adapters, and today's settings as a set-up to replay them against."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from agentflow.errors import DatabaseDown, DataFolderBusy
from agentflow.records.embedded import EmbeddedOptions, EmbeddedPostgres, neighbour
from agentflow.records.history import spoken
from agentflow.residency.advice import Advice, advise
from agentflow.residency.foresight import Cargo, SetUp, Visit
from agentflow.wiring.forecast import Forecast
from agentflow.wiring.place import Place, Progress

OVERLAP = 0.05
"""Seconds that recall takes, during which a load is hidden."""
UNKNOWN = 50 * 10**6


def advice(place: Place, found: Forecast, *, last: int, progress: Progress) -> Advice:
    """Replay the last turns that adapters answered. Raises DatabaseError."""
    with _database(place, progress) as dsn:
        turns = spoken(dsn, last=last)
    progress(f"replaying {len(turns)} turns")
    visits = [Visit(turn.at, turn.role, turn.thread) for turn in turns]
    return advise(visits, cargo(place, found), set_up(place, found))


def cargo(place: Place, found: Forecast) -> dict[str, Cargo]:
    """What each role's adapter weighs; one whose size is not known weighs like the others' median."""
    sizes = [spot.octets for spot in found.spots if spot.octets]
    usual = int(median(sizes)) if sizes else UNKNOWN
    roles = place.settings.roles
    return {spot.role: Cargo(spot.octets or usual, spot.remote) for spot in found.spots if spot.role in roles}


def set_up(place: Place, found: Forecast) -> SetUp:
    """Today's settings. What rests in VRAM is never unloaded for idleness."""
    roles = place.settings.roles
    limits = {
        spot.role: after
        for spot in found.spots
        if (after := roles[spot.role].unload_after) is not None and spot.location != "vram"
    }
    base = SetUp(found.slots, next(level.limit or 0 for level in found.levels if level.tier == "ram"))
    return replace(
        base,
        overlap=OVERLAP,
        pins=frozenset(spot.role for spot in found.spots if spot.pin == "vram"),
        at_start=tuple(spot.role for spot in found.spots if spot.location == "vram" or spot.warm == "start"),
        unload_after=limits,
        rests_below=frozenset(spot.role for spot in found.spots if spot.location in ("disk", "remote")),
    )


@contextmanager
def _database(place: Place, progress: Progress) -> Iterator[str]:
    """The DSN of the database: named, run by another agentflow on this machine, or started for a while."""
    postgres = place.settings.postgres
    if postgres.url is not None:
        yield postgres.url.get_secret_value()
        return
    data = Path(postgres.data)
    if not data.exists():
        raise DatabaseDown(f"There is no database in {data} yet: no turns to replay.", field="postgres.data")
    options = EmbeddedOptions(data, postgres.bin_dir, postgres.start_timeout, postgres.run_as)
    server = EmbeddedPostgres(options, progress=progress)
    try:
        dsn = server.start()
    except DataFolderBusy:
        running = neighbour(data)
        if running is None:
            raise
        yield running
        return
    try:
        yield dsn
    finally:
        server.stop()
