"""Accounts as logs may show them."""

from __future__ import annotations

import pytest

from ibfast.config.accounts import mask


@pytest.mark.parametrize(
    ("account", "masked"),
    [
        ("DU1234567", "DU****567"),
        ("U123456", "U****456"),
        ("DUM123456", "DUM****456"),
        ("F7654321A", "F****321"),
        ("DU12345", "DU****"),
        ("DU1", "DU****"),
        ("secret", "****"),
        ("", "****"),
    ],
)
def test_a_mask_leaves_what_a_user_recognises_and_no_more(account: str, masked: str) -> None:
    assert mask(account) == masked
