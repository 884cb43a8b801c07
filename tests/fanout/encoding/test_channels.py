"""What can be subscribed to: sources of a data type, and the fields of their rows."""

from __future__ import annotations

import pytest

from ibfast.contracts import Contract
from ibfast.fanout.encoding.channels import (
    DATA_TYPES,
    HEADER,
    INTERVALS_MS,
    STRUCTURE,
    Channel,
    fields_of,
    taps_of,
)
from ibfast.feed.feed import BACKFILL_KINDS, Feed
from ibfast.records import FAMILIES, Kind

STOCK = Contract(1, "AAPL", "STK", exchange="SMART", currency="USD")
OPTION = Contract(2, "AAPL", "OPT", exchange="SMART", currency="USD")


@pytest.mark.parametrize(
    ("data_type", "families"),
    [
        ("TRADES", ["trades"]), ("QUOTES", ["quotes"]), ("TICKS", ["ticks"]), ("DEPTH", ["depth"]), ("BARS", ["bars"]),
        ("ALL", ["quotes", "trades", "ticks"]),
    ],
)  # fmt: skip
def test_a_data_type_is_of_these_families(data_type: str, families: list[str]) -> None:
    assert [tap.family for tap in taps_of(STOCK, data_type)] == families


def test_greeks_are_of_options() -> None:
    assert [tap.family for tap in taps_of(OPTION, "GREEKS")] == ["greeks"]
    assert [tap.family for tap in taps_of(OPTION, "ALL")] == ["quotes", "trades", "ticks", "greeks"]
    with pytest.raises(ValueError, match="GREEKS"):
        taps_of(STOCK, "GREEKS")


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_families_come_in_the_order_of_binary_messages_and_have_kinds_of_their_own(data_type: str) -> None:
    taps = taps_of(OPTION, data_type)
    assert sorted((tap.family for tap in taps), key=FAMILIES.index) == [tap.family for tap in taps]
    for tap in taps:
        assert tap.kinds
        marked = BACKFILL_KINDS.get(tap.family)
        assert set(BACKFILL_KINDS.values()) & tap.kinds == ({marked} if marked else set())


def test_a_book_has_its_resets() -> None:
    (tap,) = taps_of(STOCK, "DEPTH")
    assert Kind.DEPTH_RESET in tap.kinds


def test_fields_are_those_that_can_be_left_out() -> None:
    assert fields_of(["trades"]) == ("attribs", "event_ns", "price", "size", "exchange", "conditions")
    for family in FAMILIES:
        fields = set(fields_of([family]))
        assert fields <= set(Feed.dtypes[family].names or ())
        assert not fields & (HEADER | STRUCTURE)
    both = fields_of(["quotes", "trades"])
    assert set(both) == set(fields_of(["quotes"])) | set(fields_of(["trades"]))
    assert len(both) == len(set(both))


def test_a_channel_is_what_its_encoded_form_depends_on() -> None:
    one = Channel(1, ("trades",), frozenset({Kind.LAST}))
    assert one == Channel(1, ("trades",), frozenset({Kind.LAST}))
    assert len({one, Channel(1, ("trades",), frozenset({Kind.LAST}), unit="ns")}) == 2


def test_intervals_have_a_class_each_in_both_units() -> None:
    assert list(INTERVALS_MS) == sorted(set(INTERVALS_MS))
    assert 2 * len(INTERVALS_MS) <= 16  # the classes of binary messages
