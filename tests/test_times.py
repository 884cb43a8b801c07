from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.times import NS_PER_S, parse_bar_time, seconds_to_ns

NEW_YORK = ZoneInfo("America/New_York")
OPEN_NS = 1_704_810_600 * NS_PER_S  # 2024-01-09 09:30 in New York


@pytest.mark.parametrize(
    "text",
    [
        "1704810600",
        "20240109 09:30:00",
        "20240109  09:30:00",
        "20240109 09:30:00 US/Eastern",
        "20240109  15:30:00 Europe/Berlin",
        "20240109 14:30:00 UTC",
        "20240109 14:30:00 Z",
        "20240109 14:30:00Z",
        "20240109-14:30:00",
        "20240109-14:30:00Z",
        "20240109-09:30:00 US/Eastern",
    ],
)
def test_one_moment_in_all_forms(text):
    assert parse_bar_time(text, NEW_YORK) == OPEN_NS


def test_a_date_is_midnight_in_the_zone():
    assert parse_bar_time("20240109", NEW_YORK) == OPEN_NS - int(9.5 * 3600) * NS_PER_S
    assert parse_bar_time("20240109", UTC) == parse_bar_time("20240109 00:00:00 UTC", NEW_YORK)
    assert parse_bar_time("20240109 US/Eastern", UTC) == parse_bar_time("20240109", NEW_YORK)


def test_summer_time_is_the_zones():
    winter = parse_bar_time("20240308 09:30:00", NEW_YORK)
    summer = parse_bar_time("20240311 09:30:00", NEW_YORK)
    assert summer - winter == (3 * 24 - 1) * 3600 * NS_PER_S


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), st.integers(-14, 14))
def test_every_second_in_every_offset(moment, hours):
    zone = timezone(timedelta(hours=hours))
    moment = moment.replace(microsecond=0)
    expected = int((moment.replace(tzinfo=zone) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * NS_PER_S
    assert parse_bar_time(moment.strftime("%Y%m%d  %H:%M:%S"), zone) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "12345678",  # month 56
        "1234567",
        "20240230",
        "20240109 25:00:00",
        "20240109 9:30:00",
        "20240109   09:30:00",
        "20240109 09:30:00 Nowhere/Land",
        "20240109 09:30:00 ../../etc/passwd",
        "20240109 09:30:00 Europe",
        "20240109T09:30:00",
        "２０２４0109",
        "1704810600.5",
        "99999999999999",
        "garbage",
    ],
)
def test_garbage_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_bar_time(text, UTC)


def test_seconds_to_ns_fits_int64():
    assert seconds_to_ns(-5) == -5_000_000_000
    with pytest.raises(ValueError, match="out of range"):
        seconds_to_ns(2**62)
