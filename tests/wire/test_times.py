from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.records import NS_PER_S
from ibfast.wire.times import parse_bar_time, seconds_to_ns, zone_of

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


@pytest.mark.parametrize(
    ("name", "hours"),
    [
        ("EST", -4),
        ("EDT", -4),
        ("CST", -5),
        ("MST", -6),
        ("PST", -7),
        ("JST", 9),
        ("CET", 2),
        ("MET", 2),
        ("BST", 1),
        ("GMT", 0),
        ("HKT", 8),
        ("US/Eastern", -4),
        ("Eastern Standard Time", -4),
        ("Central European Standard Time", 2),
        ("Japan Standard Time", 9),
        ("EST (Eastern Standard Time)", -4),
        ("CST (China Standard Time)", 8),
        ("America/New_York", -4),
        ("UTC", 0),
    ],
)
def test_a_name_means_the_clock_of_its_place_in_july_too(name, hours):
    moment = datetime(2026, 7, 5, 8, 30)
    expected = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert moment.replace(tzinfo=zone_of(name)) == expected
    assert parse_bar_time(f"20260705 08:30:00 {name}", UTC) == int(expected.timestamp()) * NS_PER_S


def test_all_names_of_the_table_are_known_to_the_database_that_ibfast_requires():
    program = (
        "import zoneinfo; zoneinfo.reset_tzpath(())\n"
        "from ibfast.wire import times\n"
        "for name in times._ZONES: times.zone_of(name)\n"
        "print(len(times._ZONES))"
    )
    assert int(subprocess.check_output([sys.executable, "-c", program])) > 50


def test_a_missing_database_is_named():
    program = (
        "import sys, zoneinfo; zoneinfo.reset_tzpath(()); sys.modules['tzdata'] = None\n"
        "from ibfast import config; from ibfast.wire import times\n"
        "for ask in (lambda: times.zone_of('EST'), lambda: times.parse_bar_time('20260705 08:30:00 CST', None),\n"
        "            config.Config):\n"
        "    try: ask()\n"
        "    except ValueError as error: print(error)\n"
    )
    told = subprocess.check_output([sys.executable, "-c", program], text=True).splitlines()
    assert len(told) == 3
    assert all("no time zone database" in line and "tzdata" in line for line in told)
