"""The checks of settings: what passes, and the words for what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ibfast.config import checks
from ibfast.errors import ConfigError

CHECKS: dict[Callable[..., None], tuple[tuple[Any, ...], tuple[Any, ...], str]] = {
    checks.require_seconds: ((0.001, 5, 1e9), (0, -1, float("nan"), float("inf"), "5", True, None), "give seconds"),
    checks.require_share: ((0.01, 1, 1.0), (0, 1.01, float("nan"), "1", True), "give a share"),
    checks.require_time_of_day: (("00:00", "23:59"), ("24:00", "9:00", "23:45 ", "", 2345, None), 'such as "23:45"'),
    checks.require_week_time: (
        ("SUN 01:00", "MON 23:59"),
        ("01:00", "SUN", "Sunday 01:00", "SUN  01:00", 7),
        "SUN 01:00",
    ),
    checks.require_day_minutes: ((1, 1440), (0, 1441, 1.5, True, None), "1 to 1440"),
    checks.require_zone: (("UTC", "America/New_York"), ("", "Mars/Olympus", "../etc/passwd", None), "America/New_York"),
    checks.require_host: (("127.0.0.1", "desk"), ("", None, 5), "give a host name"),
    checks.require_flag: ((True, False), (0, 1, "true", None), "give true or false"),
}


@pytest.mark.parametrize(("check", "value"), [(check, value) for check, case in CHECKS.items() for value in case[0]])
def test_a_possible_value_passes(check: Callable[..., None], value: Any) -> None:
    check("section.field", value)


@pytest.mark.parametrize(
    ("check", "value", "remedy"), [(check, value, case[2]) for check, case in CHECKS.items() for value in case[1]]
)
def test_an_impossible_value_is_named_with_field_and_remedy(
    check: Callable[..., None], value: Any, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check("section.field", value)
    assert caught.value.field == "section.field"
    assert str(caught.value).startswith(f"section.field={value!r} is not possible: give ")
    assert remedy in str(caught.value)
