from __future__ import annotations

import pytest

from ibfast.connection.historical import BAR_KINDS, check_bars, check_kind, check_real_time_bars, check_ticks

SIZES = (
    "1 secs", "1 sec", "5 secs", "10 secs", "15 secs", "30 secs", "1 min", "2 mins", "3 mins", "5 mins", "10 mins",
    "15 mins", "20 mins", "30 mins", "1 hour", "2 hours", "3 hours", "4 hours", "8 hours", "1 day", "1 week", "1 month",
    "1W", "1M",
)  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_every_documented_bar_size(size):
    check_bars("TRADES", size, "1 D")


@pytest.mark.parametrize("duration", ["60 S", "1 D", "2 W", "6 M", "1 Y", "86400 S"])
def test_every_documented_duration(duration):
    check_bars("TRADES", "1 day", duration, "20260105-15:00:00")


@pytest.mark.parametrize("kind", BAR_KINDS)
def test_every_kind_of_bars(kind):
    check_bars(kind, "1 min", "1 D")
    check_kind(kind)


@pytest.mark.parametrize(
    ("arguments", "named", "possible"),
    [
        (("SCHEDULE", "1 day", "1 D"), r"what_to_show='SCHEDULE'.*schedules are not read", "TRADES, MIDPOINT, BID"),
        (("TRADE", "1 day", "1 D"), "what_to_show='TRADE'", "TRADES, MIDPOINT, BID"),
        (("TRADES", "7 mins", "1 D"), "bar_size='7 mins'", "5 mins, 10 mins"),
        (("TRADES", "1min", "1 D"), "bar_size='1min'", "1 min, 2 mins"),
        (("TRADES", "0 mins", "1 D"), "bar_size='0 mins'", "1 min, 2 mins"),
        (("TRADES", "", "1 D"), "bar_size=''", "1 min"),
        (("TRADES", "1 day", "1 d"), "duration='1 d'", "'1 D'"),
        (("TRADES", "1 day", "1D"), "duration='1D'", "'1 D'"),
        (("TRADES", "1 day", "0 D"), "duration='0 D'", "'1 D'"),
        (("TRADES", "1 day", "1 H"), "duration='1 H'", "S, D, W, M or Y"),
        (("ADJUSTED_LAST", "1 day", "1 D", "20260105-15:00:00"), "end=", "leave it out"),
    ],
)
def test_bars_that_there_are_not(arguments, named, possible):
    with pytest.raises(ValueError, match=named) as caught:
        check_bars(*arguments)
    assert possible in str(caught.value)


def test_bars_that_are_kept_up_to_date_have_no_end_and_five_seconds_at_least():
    check_bars("TRADES", "5 secs", "1 D", keep_up_to_date=True)
    with pytest.raises(ValueError, match="end="):
        check_bars("TRADES", "5 secs", "1 D", "20260105-15:00:00", keep_up_to_date=True)
    for size in ("1 secs", "1 sec"):
        with pytest.raises(ValueError, match="5 secs"):
            check_bars("TRADES", size, "1 D", keep_up_to_date=True)


def test_real_time_bars_and_ticks():
    check_real_time_bars("MIDPOINT")
    with pytest.raises(ValueError, match=r"BID_ASK.*TRADES, MIDPOINT, BID, ASK"):
        check_real_time_bars("BID_ASK")
    check_ticks("BID_ASK", "20260105-15:00:00", "")
    with pytest.raises(ValueError, match=r"BID'.*TRADES, BID_ASK, MIDPOINT"):
        check_ticks("BID", "", "")
    with pytest.raises(ValueError, match="give one of them"):
        check_ticks("TRADES", "20260105-15:00:00", "20260105-16:00:00")
