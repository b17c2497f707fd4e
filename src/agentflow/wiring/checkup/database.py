"""The database: there, new enough, at our revision, guarded."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

from agentflow.errors import DatabaseDown
from agentflow.records.address import checked
from agentflow.records.checkup import Condition, condition
from agentflow.records.embedded import EmbeddedPostgres
from agentflow.wiring import choices
from agentflow.wiring.checkup.row import Row
from agentflow.wiring.place import Place, silent

SKEW = 5.0
"""Seconds that the clocks of this machine and of the database may differ."""


async def database(place: Place) -> Sequence[Row]:
    postgres = place.settings.postgres
    if postgres.url is not None:
        return list(judged(await condition(checked(postgres.url.get_secret_value()))))
    if not (postgres.data / "PG_VERSION").is_file():
        return [Row("database", "ok", f"our own, made at the first start in {postgres.data}")]
    try:
        return list(judged(await condition(EmbeddedPostgres(choices.embedded(place)).beside())))
    except DatabaseDown:
        async with AsyncExitStack() as stack:
            return list(judged(await condition(await choices.database(place, stack, silent))))


def judged(found: Condition) -> Iterator[Row]:
    """What a database says of itself, held against what this agentflow needs."""
    used, most = found.connections
    yield Row("database", "ok", f"Postgres {found.version}, {found.size}, {used} of {most} connections")
    if abs(found.ahead) > SKEW:
        told = f"this machine is {abs(found.ahead):.0f} s {'ahead of' if found.ahead > 0 else 'behind'} the database"
        yield Row("clock", "warning", told, "set both by NTP: tokens, crons and signatures go by the time")
    yield _extension(found.vector or found.vector_available)
    yield _schema(found.at, found.wanted)
    yield from _guard(found)
    if found.given_up:
        told = "; ".join(f"{number} x {name}, {reason}" for name, reason, number in found.given_up)
        way = "GET /turns/ID tells which; they are kept for 30 days"
        yield Row("jobs", "warning", f"given up: {told}", way)


def _extension(offered: str | None) -> Row:
    if offered is None or tuple(int(part) for part in offered.split(".")[:2]) < (0, 8):
        return Row("pgvector", "mistake", offered or "not installed", "install pgvector 0.8 or newer")
    return Row("pgvector", "ok", offered)


def _schema(at: str | None, wanted: str) -> Row:
    if at == wanted:
        return Row("schema", "ok", f"revision {at}")
    if at is not None and at > wanted:
        told = f"revision {at}, which is newer than {wanted} of this agentflow"
        return Row("schema", "mistake", told, "update agentflow, or name another database")
    return Row(
        "schema", "warning", f"revision {at or 'none'} of {wanted}", "`agentflow migrate`, or the start does"
    )


def _guard(found: Condition) -> Iterator[Row]:
    """Roles and row-level security, of a database that was set up."""
    if found.at is not None and found.roles_lacking:
        way = (
            "`agentflow migrate` as a role that may create roles; without privileges it tells the statements"
        )
        yield Row("roles", "mistake", f"missing or too mighty: {', '.join(found.roles_lacking)}", way)
    if found.unguarded:
        told = f"not forced on {', '.join(found.unguarded)}"
        yield Row("row security", "mistake", told, "`agentflow migrate`")
    elif found.at is not None:
        yield Row("row security", "ok", "forced on every table")
