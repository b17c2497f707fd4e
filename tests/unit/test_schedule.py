"""Duties: from when until when an adapter is kept warm."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.residency.schedule import Duty

OFFICE = Duty("0 8 * * 1-5", "0 18 * * 1-5")
MONDAY = datetime(2026, 11, 23)  # noqa: DTZ001 - schedules are local
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)


@pytest.mark.parametrize(
    ("hours", "on"), [(7.99, False), (8.0, True), (12.0, True), (17.99, True), (18.0, False), (-24.0, False)]
)
def test_a_duty_lasts_from_its_first_line_to_its_second(hours, on) -> None:
    now = MONDAY + timedelta(hours=hours)
    assert OFFICE.on(now, since=now) is on


def test_a_duty_of_a_moment_is_told_once() -> None:
    duty, at = Duty("0 8 * * *"), MONDAY + timedelta(hours=8, seconds=3)
    assert duty.on(at, since=at - timedelta(seconds=5))
    assert not duty.on(at + timedelta(seconds=5), since=at)


@given(moments)
def test_a_duty_of_office_hours_is_on_in_office_hours_alone(now) -> None:
    assert OFFICE.on(now, since=now) is (now.weekday() < 5 and 8 <= now.hour < 18)
