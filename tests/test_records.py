"""The dtypes that users get: aligned in every row, so that other libraries take the columns as they are."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ibfast
from ibfast.feed.feed import ACTIVITY
from ibfast.records import HISTORICAL_BAR, HISTORICAL_TICK_BID_ASK, HISTORICAL_TICK_LAST, HISTORICAL_TICK_MIDPOINT

HISTORY = {
    "HISTORICAL_BAR": HISTORICAL_BAR,
    "HISTORICAL_TICK_BID_ASK": HISTORICAL_TICK_BID_ASK,
    "HISTORICAL_TICK_LAST": HISTORICAL_TICK_LAST,
    "HISTORICAL_TICK_MIDPOINT": HISTORICAL_TICK_MIDPOINT,
}


def public_dtypes() -> Iterator[tuple[str, np.dtype[Any]]]:
    """Yield every structured dtype that a module of the package has under a public name, itself or in a dictionary."""
    seen = set()
    for module in pkgutil.walk_packages(ibfast.__path__, "ibfast."):
        if module.name == "ibfast.__main__":
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            items = value.items() if isinstance(value, dict) else [(name, value)]
            for key, dtype in items:
                if name[0] != "_" and isinstance(dtype, np.dtype) and dtype.names and id(dtype) not in seen:
                    seen.add(id(dtype))
                    yield f"{module.name}.{name}" + (f".{key}" if isinstance(value, dict) else ""), dtype


DTYPES = dict(public_dtypes())


def is_aligned(dtype: np.dtype[Any]) -> bool:
    fields = [dtype.fields[name][:2] for name in dtype.names or ()] if dtype.fields else []
    assert fields
    sizes_and_offsets = [(field.alignment, offset) for field, offset in fields]
    return all(offset % size == 0 == dtype.itemsize % size for size, offset in sizes_and_offsets)


def filled(dtype: np.dtype[Any], count: int = 5) -> Any:
    """Return rows of which every value is another one."""
    rows = np.zeros(count, dtype)
    for number, name in enumerate(dtype.names or ()):
        rows[name] = np.arange(count) + 10 * number
    return rows


def test_the_public_dtypes_were_found() -> None:
    found = set(map(id, DTYPES.values()))
    assert {*map(id, HISTORY.values()), *map(id, ibfast.Feed.dtypes.values()), id(ACTIVITY)} <= found
    assert {"ticks", "trades", "quotes", "depth", "bars", "greeks", "gaps", "last"} <= {*ibfast.Feed.dtypes}
    assert not is_aligned(np.dtype([("event_ns", "i8"), ("count", "i4")]))
    assert not is_aligned(np.dtype([("count", "i4"), ("event_ns", "i8"), ("more", "i4")]))


@pytest.mark.parametrize("name", DTYPES)
def test_every_field_of_every_row_is_aligned(name: str) -> None:
    """Batches that are joined too: numpy packs what is not marked as aligned."""
    dtype = DTYPES[name]
    assert is_aligned(dtype)
    joined = np.concatenate([np.zeros(3, dtype), np.zeros(3, dtype)])
    assert is_aligned(joined.dtype)
    assert all(joined[field].flags.aligned for field in dtype.names or ())


@pytest.mark.parametrize("name", [*HISTORY, *ibfast.Feed.dtypes])
def test_rows_become_tables_of_other_libraries(name: str) -> None:
    dtype = HISTORY.get(name) or ibfast.Feed.dtypes[name]
    rows = filled(dtype)
    for batch in (rows, rows[1:4], rows[::2], np.concatenate([rows, rows])):
        columns = {field: batch[field].tolist() for field in dtype.names or ()}
        assert pl.DataFrame(batch).to_dict(as_series=False) == columns
        assert pl.DataFrame({field: batch[field] for field in columns}).to_dict(as_series=False) == columns
        assert pa.table({field: batch[field] for field in columns}).to_pydict() == columns
        assert pd.DataFrame(batch).to_dict("list") == columns
