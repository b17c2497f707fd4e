"""Cron lines: from when until when an adapter is kept warm. Pure; times are local to the server."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from croniter import croniter


@dataclass(frozen=True)
class Duty:
    """Cron lines of five fields. Without `until` the duty is a moment: loaded then, idle time decides the rest."""

    at: str
    until: str | None = None

    def on(self, now: datetime, since: datetime) -> bool:
        """Whether the adapter is to be warm now; `since` is when this was asked last, for duties of a moment."""
        began = _last(self.at, now)
        return began > (since if self.until is None else _last(self.until, now))


def _last(line: str, now: datetime) -> datetime:
    """The last time at or before now."""
    found: datetime = croniter(line, now + timedelta(seconds=1)).get_prev(datetime)
    return found
