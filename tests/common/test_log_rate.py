"""So many of a kind are logged in a span, and the others are counted."""

from __future__ import annotations

from ibfast.common.log_rate import LogRate


def test_the_rest_of_a_span_is_left_out_and_told_with_the_next_span() -> None:
    rate = LogRate(2, 10.0)
    assert [rate.admit("a", now_s) for now_s in (0.0, 1.0, 2.0, 9.9)] == ["", "", None, None]
    assert rate.admit("a", 10.0) == " (2 of this kind before were not logged)"
    assert [rate.admit("a", now_s) for now_s in (11.0, 12.0, 40.0, 41.0)] == [
        "", None, " (1 of this kind before were not logged)", "",
    ]  # fmt: skip


def test_kinds_do_not_hinder_each_other() -> None:
    rate = LogRate(1)
    assert [rate.admit(kind, 0.0) for kind in "aba"] == ["", "", None]
