from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from ibfast.common.scalars import flag, moment, plain, text, whole


@pytest.mark.parametrize(
    ("value", "own"),
    [
        (np.bool_(True), True),
        (np.int64(5), 5),
        (np.uint8(5), 5),
        (np.float64(1.5), 1.5),
        (np.float32(1.5), 1.5),
        (np.str_("A"), "A"),
        (pd.Series([5])[0], 5),
        (7, 7),
        (None, None),
    ],
)
def test_numpy_s_scalars_become_python_s_own(value, own):
    assert plain(value) == own
    assert type(plain(value)) is type(own)


@pytest.mark.parametrize(
    ("convert", "value", "own"),
    [
        (flag, np.bool_(False), False),
        (flag, 1, True),
        (flag, np.int64(0), False),
        (whole, np.int32(-3), -3),
        (text, np.str_("TRADES"), "TRADES"),
        (moment, "20260105-15:00:00", "20260105-15:00:00"),
        (moment, "", ""),
        (moment, datetime(2026, 1, 5, 10, tzinfo=ZoneInfo("America/New_York")), "20260105-15:00:00"),
        (moment, datetime(2026, 1, 5, 15, tzinfo=UTC), "20260105-15:00:00"),
        (moment, pd.Timestamp("2026-01-05 10:00", tz="America/New_York"), "20260105-15:00:00"),
    ],
)
def test_arguments_become_what_they_mean(convert, value, own):
    assert convert("name", value) == own
    assert type(convert("name", value)) is type(own)


@pytest.mark.parametrize(
    ("convert", "value", "kind"),
    [
        (flag, "no", TypeError),
        (flag, 2, TypeError),
        (flag, None, TypeError),
        (flag, 1.0, TypeError),
        (whole, True, TypeError),
        (whole, np.bool_(True), TypeError),
        (whole, np.float64(5), TypeError),
        (whole, "5", TypeError),
        (whole, Decimal(5), TypeError),
        (whole, 2**31, ValueError),
        (whole, np.uint64(2**63), ValueError),
        (text, 5, TypeError),
        (text, None, TypeError),
        (text, b"A", TypeError),
        (text, "A\0B", ValueError),
        (moment, datetime(2026, 1, 5), ValueError),
        (moment, pd.Timestamp("2026-01-05"), ValueError),
        (moment, np.datetime64("2026-01-05"), ValueError),
        (moment, 1_700_000_000, TypeError),
    ],
)
def test_what_can_not_be_meant_is_refused_with_its_name(convert, value, kind):
    with pytest.raises(kind, match="name="):
        convert("name", value)
