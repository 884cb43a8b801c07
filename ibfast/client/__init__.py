"""A subscriber's side of the stream."""

from typing import TYPE_CHECKING

from ibfast.common.lazy import lazily

if TYPE_CHECKING:
    from ibfast.client.provider import WebSocketProvider
else:
    __getattr__, __dir__ = lazily(__name__, {"ibfast.client.provider": ("WebSocketProvider",)})

__all__ = ["WebSocketProvider"]
