"""Every exception that ibfast raises.

    Error
    ├── ConfigError           a setting is missing or wrong; names the field and the remedy
    ├── ConnectError          no session could be made; names the stage that failed and the remedy
    │   ├── AuthError             the login is not the one that was declared; names the setting
    │   └── ClientIdInUseError    another client has the client id
    ├── NotConnectedError     the call needs a session and there is none (any more)
    ├── LoopError             the call comes from another event loop than the one that keeps the connection
    ├── ProtocolError         the byte stream itself is broken; the connection is of no further use
    ├── DecodeError           one message is malformed; names message, field and value; the stream goes on
    ├── UnsupportedError      the gateway's server version is too old for the request
    ├── RequestError          the gateway refused a request; carries IB's code and text
    ├── StoreError            the file of subscriptions can't be read or written
    ├── StreamError           a fan-out server refused a subscription or ended it; carries its code and the remedy
    ├── PacingError           too many requests wait already for IB's limits; submit fewer, or wait
    ├── CircuitOpenError      a circuit breaker refused a call to what has failed too often; says when to try again
    └── FeedError             a ring or a shared feed can't be made, found or read

The rule of the file: an exception carries what a program needs to act on as attributes, as it was sent; its text is for
people, and fit to be logged.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from ibfast.common.shown import shown

__all__ = [
    "AuthError",
    "CircuitOpenError",
    "ClientIdInUseError",
    "ConfigError",
    "ConnectError",
    "DecodeError",
    "Error",
    "FeedError",
    "LoopError",
    "NotConnectedError",
    "PacingError",
    "ProtocolError",
    "RequestError",
    "StoreError",
    "StreamError",
    "UnsupportedError",
]


class Error(Exception):
    """Base of all exceptions of ibfast."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(shown(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigError(Error, ValueError):
    """A setting is missing, of the wrong type or out of range.

    Attributes:
        field: the setting, such as "heartbeat.interval_s"; "" where the error is about no single one.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class ConnectError(Error):
    """No session could be made.

    Attributes:
        stage: where it failed: "system" (this machine has no socket left), "tcp", "tls", "handshake", "start" or
            "auth".
        remedy: what the user can do about it.
        needs_login: whether the gateway accepts the connection and sends nothing, as if no user were logged in.
    """

    def __init__(self, stage: str, reason: str, remedy: str, *, needs_login: bool = False) -> None:
        super().__init__(f"{reason} ({stage}): {remedy}")
        self.stage = stage
        self.reason = reason
        self.remedy = remedy
        self.needs_login = needs_login


class AuthError(ConnectError):
    """The gateway's login is not the one that was declared, or can't be recognised; nothing was subscribed.

    Attributes:
        field: the setting that does not hold.
    """

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        super().__init__("auth", reason, remedy)
        self.field = field


class ClientIdInUseError(ConnectError):
    """Another client of the gateway has this client id (code 326)."""


class NotConnectedError(Error):
    """The call needs a session with the gateway and there is none."""


class LoopError(Error, RuntimeError):
    """The call comes from another event loop than the one that keeps the connection; says what to do instead."""


class ProtocolError(Error):
    """The byte stream is broken: nothing after `offset` can be trusted, drop the connection.

    Attributes:
        offset: bytes of the stream before the frame that broke it.
        data: the first bytes of that frame.
    """

    def __init__(self, reason: str, offset: int = 0, data: bytes = b"") -> None:
        super().__init__(f"{reason} at byte {offset} of the stream: {data[:32].hex(' ')}")
        self.reason = reason
        self.offset = offset
        self.data = data


class DecodeError(Error, ValueError):
    """One message does not parse; the stream is intact. The question that it was to answer ends with this error.

    Attributes:
        reason: what is wrong.
        msg_id, payload: the message's id, and its bytes after the id.
        message: the message's name in IB's words ("HISTORICAL_DATA"), "" if unknown.
        field: the field that can't be read, "" where the bytes name none.
        value: what stands in the field, as text.
    """

    def __init__(
        self, reason: str, msg_id: int = 0, payload: bytes = b"", *, message: str = "", field: str = "", value: str = ""
    ) -> None:
        super().__init__(f"message {message or msg_id} can't be read: {reason}")
        self.reason = reason
        self.msg_id = msg_id
        self.payload = payload
        self.message = message
        self.field = field
        self.value = value


class UnsupportedError(Error):
    """The server version that was agreed on has no such request or field."""


class RequestError(Error):
    """The gateway refused or ended a request.

    Attributes:
        req_id: the request, -1 if the gateway named none.
        code: IB's message code (https://interactivebrokers.github.io/tws-api/message_codes.html).
        message: IB's text.
    """

    def __init__(self, req_id: int, code: int, message: str) -> None:
        super().__init__(f"request {req_id}: error {code}: {message}")
        self.req_id = req_id
        self.code = code
        self.message = message


class StoreError(Error):
    """The file of subscriptions can't be read or written."""


class StreamError(Error):
    """A fan-out server refused a request, or ended a subscription.

    Attributes:
        code: of docs/stream-protocol.md.
        message: the server's text.
        remedy: what the user can do about it, where that is known.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{code}: {message}: {remedy}" if remedy else f"{code}: {message}")
        self.code = code
        self.message = message
        self.remedy = remedy


class PacingError(Error):
    """The queue of requests that wait for IB's limits is full.

    Attributes:
        queued: how many wait.
    """

    def __init__(self, queued: int) -> None:
        super().__init__(f"{queued} requests wait for IB's limits already: wait for some, or withdraw them")
        self.queued = queued


class CircuitOpenError(Error):
    """A circuit breaker refused the call: what it guards has failed too often.

    Attributes:
        name: of the breaker.
        retry_after_s: seconds until it may permit a call.
    """

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__(f"the circuit breaker {name!r} refuses calls: try again in {retry_after_s:.3g} s")
        self.name = name
        self.retry_after_s = retry_after_s


class FeedError(Error):
    """A ring or a shared feed can't be made, found or read."""


def copy_of(error: Exception) -> Exception:
    """Return an error like this one: every consumer raises its own, since raising changes an exception."""
    kind = type(error)
    twin = kind.__new__(kind, *error.args)
    twin.__dict__.update(error.__dict__)
    twin.__cause__ = error.__cause__
    return twin
