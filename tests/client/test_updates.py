"""Rows as objects: every column is there under its own name, and what a family does not have is absent."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from ibfast import Kind
from ibfast.client.updates import (
    CLASSES,
    TEXT_FIELDS,
    Arrival,
    Batch,
    Instruments,
    Lag,
    LagTotals,
    Quote,
    Texts,
    Trade,
    Update,
    updates_of,
)
from ibfast.feed._feed import DTYPES
from ibfast.records import FAMILIES


def rows(family: str, count: int = 1, **values: Any) -> np.ndarray[Any, Any]:
    made = np.zeros(count, DTYPES[family])
    for name, value in values.items():
        made[name] = value
    return made


def objects(*batches: Batch, order: bytes | None = None) -> list[Update]:
    return list(updates_of(Arrival(batches, order), ["AAPL", "MSFT"], ["", "<other>", "ARCA"]))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_column_of_every_family_is_a_field(family: str) -> None:
    made = rows(family)
    expected: dict[str, Any] = {"ticker": "MSFT", "is_snapshot": True}
    for number, name in enumerate(name for name in DTYPES[family].names or () if name != "req_id"):
        value = {"instrument": 1, "kind": int(Kind.PRICE)}.get(name, 2 if name in TEXT_FIELDS else number + 1)
        made[name] = value
        expected[name] = "ARCA" if name in TEXT_FIELDS else value
    (update,) = objects(Batch(family, made, True))
    assert dataclasses.asdict(update) == expected  # type: ignore[call-overload]
    assert update.family == family
    assert isinstance(update.kind, Kind)


@pytest.mark.parametrize("family", FAMILIES)
def test_fields_of_other_families_are_absent(family: str) -> None:
    (update,) = objects(Batch(family, rows(family)))
    own = {item.name for item in dataclasses.fields(update)}  # type: ignore[arg-type]
    everything = {item.name for cls in CLASSES.values() for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in everything - own:
        value = getattr(update, name)
        assert value in (0, -1, 255, "") or math.isnan(value), name


def test_an_update_is_frozen_and_small() -> None:
    (update,) = objects(Batch("quotes", rows("quotes")))
    with pytest.raises(dataclasses.FrozenInstanceError):
        update.bid = 1.0
    assert not hasattr(update, "__dict__")


def test_rows_come_in_the_order_of_the_feed() -> None:
    trades, quotes = Batch("trades", rows("trades", 2, seq=[1, 4])), Batch("quotes", rows("quotes", 2, seq=[2, 3]))
    assert [(type(u), u.seq) for u in objects(trades, quotes, order=bytes([0, 1, 1, 0]))] == [
        (Trade, 1), (Quote, 2), (Quote, 3), (Trade, 4),
    ]  # fmt: skip
    assert [u.seq for u in objects(trades, quotes)] == [1, 4, 2, 3]


def test_a_kind_that_nobody_knows_is_a_number() -> None:
    (update,) = objects(Batch("trades", rows("trades", kind=200)))
    assert update.kind == 200


def test_texts_are_bounded() -> None:
    texts = Texts(most=4)
    assert [texts.id_of(text) for text in ("", "a", "b", "c", "a")] == [0, 2, 3, 1, 2]
    assert list(texts) == ["", "<other>", "a", "b"]


def test_an_instrument_is_its_contract() -> None:
    instruments = Instruments()
    said = ("ES", 1, "CME"), ("ES", 2, "CME"), ("ES", 1, "QBALGO"), ("ES", 1, "CME")
    assert [instruments.add(*each) for each in said] == [0, 1, 2, 0]
    assert (list(instruments), instruments.con_id(1), instruments.exchange(2)) == (["ES", "ES", "ES"], 2, "QBALGO")


def test_a_combo_is_its_legs() -> None:
    instruments = Instruments()
    assert [instruments.add("SPY", 0, "SMART", legs) for legs in ("one", "other", "one")] == [0, 1, 0]


def test_lags_are_added_up() -> None:
    totals = LagTotals()
    for rows_lost, reason in ((5, "slow"), (None, "resume"), (7, "consumer")):
        totals = totals.plus(Lag("AAPL", 0, 0, 0, rows_lost, reason))
    assert totals == LagTotals(lags=3, rows=12, unknown=1, consumer_rows=7)
