"""Rows in memory: rings of records, the feed that holds them, and memory that other processes share; no wire."""

from typing import TYPE_CHECKING

from ibfast.common.lazy import lazily

if TYPE_CHECKING:
    from ibfast.feed.feed import Feed
else:
    __getattr__, __dir__ = lazily(__name__, {"ibfast.feed.feed": ("Feed",)})

__all__ = ["Feed"]
