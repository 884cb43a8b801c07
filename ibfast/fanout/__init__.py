"""The fan-out: one login's data for many subscribers over WebSockets, each told exactly what it missed.

The rule of the room: messages, channels, dialects and policies are pure (no asyncio, no sockets, no clock); `server`
alone knows websockets. All of it reads the feed's rings like any other reader and never touches the tick path.
"""

from typing import TYPE_CHECKING

from ibfast.common.lazy import lazily

if TYPE_CHECKING:
    from ibfast.fanout.server import FanoutServer
else:
    __getattr__, __dir__ = lazily(__name__, {"ibfast.fanout.server": ("FanoutServer",)})

__all__ = ["FanoutServer"]
