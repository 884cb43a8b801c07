"""Trading hours as contract details tell them, and what they leave unknown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ibfast.policy.health.hours import TradingHours, exchange_zone

NEW_YORK, CHICAGO = ZoneInfo("America/New_York"), ZoneInfo("America/Chicago")
STOCK = "20180323:0400-20180323:2000;20180326:0400-20180326:2000"
FUTURE = (
    "20190707:CLOSED;20190707:1700-20190708:1515;20190708:1530-20190708:1600;"
    "20190708:1700-20190709:1515;20190709:1530-20190709:1600"
)


def at(text: str, zone: ZoneInfo = NEW_YORK) -> float:
    return datetime.strptime(text, "%Y%m%d %H:%M").replace(tzinfo=zone).timestamp()


def asked(hours: TradingHours, *times: str, zone: ZoneInfo = NEW_YORK) -> list[bool | None]:
    return [hours.is_open(at(time, zone)) for time in times]


def test_sessions_of_a_stock() -> None:
    hours = TradingHours.parse(STOCK, "US/Eastern")
    assert asked(hours, "20180322 23:59", "20180323 00:00", "20180323 03:59") == [None, False, False]
    assert asked(hours, "20180323 04:00", "20180323 19:59", "20180323 20:00") == [True, True, False]
    assert asked(hours, "20180324 12:00", "20180326 04:00", "20180326 23:59") == [False, True, False]
    assert asked(hours, "20180327 00:00", "20180327 12:00") == [None, None]


def test_the_older_form_with_a_break_and_a_closed_day() -> None:
    hours = TradingHours.parse("20090507:0700-1200,1300-1830,1830-2330;20090508:CLOSED", "EST (Eastern Standard Time)")
    times = ["20090507 07:00", "20090507 12:30", "20090507 18:30", "20090507 23:30", "20090508 12:00", "20090509 00:00"]
    assert asked(hours, *times) == [True, False, True, False, False, None]
    assert len(hours.changes_s) == 6


def test_sessions_that_overlap_are_one() -> None:
    hours = TradingHours.parse("20260105:0900-1700,1000-1100,1600-1800", "US/Eastern")
    assert hours == TradingHours.parse("20260105:0900-1800", "US/Eastern")


def test_trading_days_that_begin_in_the_evening() -> None:
    hours = TradingHours.parse(FUTURE, "US/Central")
    before = ["20190706 16:59", "20190706 17:00", "20190707 16:59"]
    assert asked(hours, *before, zone=CHICAGO) == [None, False, False]
    first = ["20190707 17:00", "20190708 03:00", "20190708 15:15", "20190708 15:30", "20190708 16:00"]
    assert asked(hours, *first, zone=CHICAGO) == [True, True, False, True, False]
    # The session of the tenth begins at 17:00 of the ninth, and nothing is told about it.
    last = ["20190709 15:59", "20190709 16:59", "20190709 17:00", "20190709 20:00"]
    assert asked(hours, *last, zone=CHICAGO) == [True, False, None, None]


def test_in_the_older_form_a_night_session_belongs_to_the_day_on_which_it_ends() -> None:
    hours = TradingHours.parse("20161116:1700-1600;20161117:1700-1600", "CST")
    told = TradingHours.parse("20161115:1700-20161116:1600;20161116:1700-20161117:1600", "US/Central")
    assert hours == told
    times = ["20161115 16:59", "20161115 17:00", "20161116 16:00", "20161117 15:59", "20161117 17:00"]
    assert asked(hours, *times, zone=CHICAGO) == [None, True, False, True, None]


def test_markets_that_never_close() -> None:
    hours = TradingHours.parse("20260105:0000-2400;20260106:0000-20260107:0000", "GMT")
    start_s = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
    assert hours == TradingHours((start_s, start_s + 2 * 86_400), (True, None))


@pytest.mark.parametrize(
    ("date", "hours_open"),
    [("20260307", 24), ("20260308", 23), ("20261101", 25)],  # New York's clock goes forward, and back
)
def test_summer_time_is_the_exchanges(date: str, hours_open: int) -> None:
    opens_s, closes_s = TradingHours.parse(f"{date}:0000-2400", "US/Eastern").changes_s
    assert closes_s - opens_s == hours_open * 3600


def test_the_changes() -> None:
    hours = TradingHours.parse(STOCK, "US/Eastern")
    steps = ["20180323 00:00", "20180323 04:00", "20180323 20:00", "20180326 04:00", "20180326 20:00", "20180327 00:00"]
    assert hours.changes_s == tuple(map(at, steps))


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("EST (Eastern Standard Time)", "America/New_York"),
        ("EST (Eastern Standard Time (New South Wales))", "Australia/Sydney"),
        ("CST (Central Standard Time)", "America/Chicago"),
        ("CST (China Standard Time)", "Asia/Shanghai"),
        ("JST (Japan Standard Time)", "Asia/Tokyo"),
        ("GMT (Greenwich Mean Time)", "Europe/London"),
        ("US/Eastern", "America/New_York"),
        ("MET", "Europe/Brussels"),
        ("GB-Eire", "Europe/London"),
        ("Europe/Berlin", "Europe/Berlin"),
        (" Asia/Hong_Kong ", "Asia/Hong_Kong"),
        ("GMT", "GMT"),
    ],
)
def test_zones(name: str, zone: str) -> None:
    assert exchange_zone(name) == ZoneInfo(zone)


@pytest.mark.parametrize(
    "name", ["", " ", "Nowhere", "XST (X Standard Time)", "../etc/passwd", "Europe", "\0", "()", "a" * 999]
)
def test_an_unknown_zone_is_told_by_nothing_but_unknown_hours(name: str) -> None:
    assert exchange_zone(name) is None
    assert TradingHours.parse(STOCK, name) == TradingHours()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "CLOSED",
        "20180323",
        "20180323:",
        "20180323:0400",
        "20180323:closed",
        "20180332:0400-2000",
        "20180323:0400-2460",
        "20180323:2500-2600",
        "20180323:0960-1000",
        "20180323:0400-20180322:2000",
        "20180323:0400-20180323:0400",
        "20180323:0400-20280323:2000",
        "00010101:1700-1600",
        "99991231:0000-2400",
        STOCK + ";?",
    ],
)
def test_what_is_not_understood_leaves_everything_unknown(text: str) -> None:
    hours = TradingHours.parse(text, "US/Eastern")
    assert hours == TradingHours()
    assert hours.is_open(at("20180323 12:00")) is None


@given(st.text(), st.text())
@example("20180323:0400-2000", "a/b")
def test_no_text_raises(text: str, zone: str) -> None:
    TradingHours.parse(text, zone)
    TradingHours.parse(text, "US/Eastern")
    exchange_zone(zone)


MINUTES = st.lists(st.integers(0, 6 * 1440 - 1), min_size=2, max_size=16, unique=True).map(sorted)
FIRST_DAY = datetime(2026, 3, 2)


@given(MINUTES, st.sampled_from(["US/Eastern", "MET", "Japan"]))
def test_sessions_are_open_and_nothing_else_is(minutes: list[int], zone: str) -> None:
    """Random sessions of any length below a week, written with their dates."""
    sessions = list(zip(minutes[::2], minutes[1::2], strict=False))
    moments = [tuple(FIRST_DAY + timedelta(minutes=minute) for minute in session) for session in sessions]
    hours = TradingHours.parse(";".join(f"{a:%Y%m%d:%H%M}-{b:%Y%m%d:%H%M}" for a, b in moments), zone)
    exchange = exchange_zone(zone)
    assert list(hours.changes_s) == sorted(set(hours.changes_s))
    for start, end in moments:
        start_s, end_s = start.replace(tzinfo=exchange).timestamp(), end.replace(tzinfo=exchange).timestamp()
        assert hours.is_open(start_s) is True
        assert hours.is_open(end_s - 1) is True
        assert hours.is_open(start_s - 1) is not True
        assert hours.is_open(end_s) is not True
    assert hours.is_open(hours.changes_s[0] - 1) is None
    assert hours.is_open(hours.changes_s[-1]) is None
