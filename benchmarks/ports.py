"""A port that stays a server's own while the server is away.

The rule of the file: nothing listens here. The kernel gives a free port to any outgoing connection, and then a server
that comes back can't listen on it; it gives nobody a port to which a socket is bound.
"""

from __future__ import annotations

import socket

__all__ = ["kept_port"]


def kept_port(host: str = "127.0.0.1") -> socket.socket:
    """Return a socket that is bound to a free port, which servers can listen on as long as the socket is open."""
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind((host, 0))
    return keeper
