"""agentflow plan --from-ledger: what other tiers, pins and time-outs would have done to the recorded turns."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from agentflow.cli.terminal import out, steps
from agentflow.errors import ConfigError
from agentflow.residency.advice import Advice, RoleAdvice
from agentflow.residency.picture import bars
from agentflow.settings.values import Location
from agentflow.wiring import Place
from agentflow.wiring.forecast import Forecast
from agentflow.wiring.past import advice


def replayed(place: Place, found: Forecast, *, last: int, picture: Path | None, as_json: bool) -> None:
    """Read the turns, replay them, and say what would have been better."""
    with steps("reading turns") as progress:
        given = advice(place, found, last=last, progress=progress)
    if picture is not None:
        _draw(picture, given)
    if as_json:
        out.print(json.dumps(asdict(given), indent=2), markup=False, highlight=False, soft_wrap=True)
        return
    if not given.visits:
        out.print("No adapter has answered a turn yet: there is nothing to replay.")
        return
    out.print(
        f"{given.visits:,} turns over {_duration(given.seconds)}, {given.slots} slots in VRAM. Milliseconds before an "
        "answer could begin, as simulated: trust the ratios.",
        soft_wrap=True,
    )
    out.print(_lines(given))
    out.print(_roles(place, given))
    out.print(f"model.ram: {max(1, round(given.ram / 1e6)):,}MB is enough for them", markup=False)
    if picture is not None:
        out.print(f"{picture} is written", markup=False)


def _draw(picture: Path, given: Advice) -> None:
    try:
        picture.write_text(bars(given), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--picture: {picture} cannot be written ({error}).", field="picture") from error


def _lines(given: Advice) -> Table:
    grid = _grid("", "mean", "p95", "p99", "not in VRAM", "below RAM", "of the optimum")
    for line in given.lines:
        one = line.outcome
        grid.add_row(
            line.name, f"{one.mean:,.1f} ms", f"{one.p95:,.0f}", f"{one.p99:,.0f}", f"{one.missed:.1%}",
            f"{one.cold:.1%}", f"{line.share:.0%}",
        )  # fmt: skip
    return grid


def _roles(place: Place, given: Advice) -> Table:
    grid = _grid("role", "turns", "every", "today", "advised")
    for one in given.roles:
        role = place.settings.roles[one.role]
        stays = role.location is Location.VRAM
        limit = None if stays else role.unload_after
        today = _setting(role.location.value, role.warm.value, limit, pin=role.pin == "vram")
        better = _advised(one)
        mark = "" if better == today else "[yellow]*[/]"
        every = "" if one.gap is None else _duration(one.gap)
        grid.add_row(escape(one.role), f"{one.visits:,}", every, today, better + mark)
    return grid


def _advised(one: RoleAdvice) -> str:
    return _setting(one.location, one.warm, one.unload_after, pin=one.pin)


def _setting(location: str, warm: str, unload_after: float | None, *, pin: bool) -> str:
    stays = (
        "pinned" if pin else "stays" if unload_after is None else f"unload after {_duration(unload_after)}"
    )
    return f"{location}, {warm}, {stays}"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _grid(*headings: str) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    return grid
