"""A server of the picows library, on uvloop: its core API, one `send` per connection."""

from __future__ import annotations

import picows
import uvloop
from rounds import Server, main


class PicowsServer(Server):
    """A listener per connection, as the library wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.transports: list[picows.WSTransport] = []

    async def listen(self) -> int:
        """Listen with the library's own settings."""
        self._server = await picows.ws_create_server(lambda request: Listener(self), "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def connections(self) -> int:
        """Return how many there are."""
        return len(self.transports)

    def write(self, messages: list[bytes]) -> None:
        """Send one message after the other: they can't be joined."""
        binary = picows.WSMsgType.BINARY
        for message in messages:
            for transport in self.transports:
                transport.send(binary, message)


class Listener(picows.WSListener):
    """One connection."""

    def __init__(self, server: PicowsServer) -> None:
        super().__init__()
        self._server = server

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Take it."""
        self._server.transports.append(transport)
        self._server.joined()

    def pause_writing(self) -> None:
        """Let the next round wait."""
        self._server.hold()

    def resume_writing(self) -> None:
        """Go on."""
        self._server.release()


if __name__ == "__main__":
    main(PicowsServer, uvloop.new_event_loop)
