"""One login, kept alive: the session with a gateway, and what users hold of it."""

from typing import TYPE_CHECKING

from ibfast.common.lazy import lazily

if TYPE_CHECKING:
    from ibfast.connection.manager import IBKRConnectionManager
else:
    __getattr__, __dir__ = lazily(__name__, {"ibfast.connection.manager": ("IBKRConnectionManager",)})

__all__ = ["IBKRConnectionManager"]
