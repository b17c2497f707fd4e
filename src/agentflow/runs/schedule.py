"""When a cron comes next."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterError, croniter

from agentflow.errors import BadInput

SHORTEST = 60.0
"""Seconds between two runs of a cron, at least."""


def next_time(schedule: str, timezone: str, after: datetime) -> datetime:
    """The first time after `after`, in UTC. `schedule` has five fields. Raises BadInput."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadInput(f"There is no timezone {timezone!r}.", field="timezone", value=timezone) from None
    if len(schedule.split()) != 5:
        raise BadInput(
            "schedule has five fields: minute hour day month weekday.", field="schedule", value=schedule
        )
    try:
        times = croniter(schedule, after.astimezone(zone), ret_type=datetime)
        found: datetime = times.get_next()
    except (CroniterError, ValueError) as error:
        raise BadInput(f"schedule cannot be read: {error}.", field="schedule", value=schedule) from None
    return found.astimezone(UTC)
