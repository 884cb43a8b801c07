"""The client's side of the stream protocol: what is wanted in, messages out; messages in, rows and events out.

The rule of the file: it knows no socket, no loop and no clock, and outlives every connection: `connected` and
`disconnected` tell of these. What a server may not say is a ProtocolError, after which the connection is of no use.
docs/stream-protocol.md is the law.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from ibfast.client.requests import MOST_WORD, Answer, Closing, Later, Output, Question, Questions, Reply, error_of
from ibfast.client.rows import DIALECTS, Received, number_of, text_of, whole_of
from ibfast.client.session import Request, Session, Wish
from ibfast.client.updates import Gap, Instruments, State, Texts
from ibfast.common.shown import shown
from ibfast.contracts import Contract
from ibfast.errors import ProtocolError
from ibfast.records import GapCause, Scope

__all__ = ["Answer", "Closing", "Later", "Output", "Question", "Reply", "StreamClient", "Wish"]

PROTOCOL_VERSION: Final = 1
MOST_UNANSWERED: Final = 64
"""Requests that are under way at once; those after them wait for answers, as a server takes only so many a second."""

MOST_VALUES: Final = 1 << 21
"""In one message: each takes two characters there, and a hundred bytes here."""
VALUES_BEGIN: Final = "[{,"

TOO_FAST: Final = "TOO_FAST"
PASSING_CODES: Final[Mapping[str, float]] = {TOO_FAST: 1.0, "NO_GATEWAY": 5.0, "TOO_MANY": 5.0}
"""What need not last: after how many seconds to ask again for what the server has had before."""


class StreamClient:
    """What a client wants, and what it has seen.

    The owner calls `connected`, gives every message to `receive`, sends what `take_messages` returns after each call,
    and calls `disconnected`. Everything that is wanted is asked for again on the next connection, with what was seen
    last, so that the server can go on from there.

    Args:
        dialect: "binary" or "json": which is wanted.

    Attributes:
        instruments, texts: what the rows' `instrument` and text ids mean.
        heartbeat_s: how often the server says something, as it has told.
    """

    def __init__(self, dialect: str = "binary") -> None:
        if dialect not in DIALECTS:
            raise ValueError(f"there is no dialect {dialect!r}: give one of {', '.join(DIALECTS)}")
        self.dialect = dialect
        self.instruments = Instruments()
        self.texts = Texts()
        self.heartbeat_s = 10.0
        self._wishes: dict[int, Wish] = {}
        self._last_number = 0
        self._last_id = 0
        self._queue: deque[Request] = deque()
        self._early: dict[Request, str] = {}
        """Those that came too early, and by which code."""
        self._questions = Questions()
        self._session: Session | None = None
        self._output: list[Output] = []

    # --- what the owner wants ---

    @property
    def wishes(self) -> tuple[Wish, ...]:
        """All subscriptions that are not over."""
        return tuple(self._wishes.values())

    @property
    def is_welcome(self) -> bool:
        """Whether there is a session in which requests are answered."""
        return self._session is not None and self._session.is_welcome

    def subscribe(self, contract: object, **options: Any) -> Wish:
        """Want data.

        Args:
            contract: a stock's symbol, a Contract, or one of ibapi or ib_async.
            options: as in the protocol; None is not given.

        Raises:
            TypeError, ValueError: the contract names nothing.
        """
        described = Contract.of(contract)
        request = {"symbol": str(contract)} if isinstance(contract, str) else {"contract": _as_table(described)}
        request |= {name: value for name, value in options.items() if value is not None}
        self._last_number += 1
        wish = Wish(self._last_number, request, described.symbol or described.local_symbol)
        self._wishes[wish.number] = wish
        self._ask(Request("subscribe", wish))
        return wish

    def unsubscribe(self, wish: Wish) -> bool:
        """Want it no more. Returns whether an answer will follow."""
        if self._wishes.pop(wish.number, None) is None:
            return False
        wish.is_withdrawn = True
        if wish.server_number is not None:
            self._ask(Request("unsubscribe", wish))
            return True
        self._queue = deque(request for request in self._queue if request.wish is not wish)
        self._early = {request: code for request, code in self._early.items() if request.wish is not wish}
        is_under_way = self._session is not None and any(r.wish is wish for r in self._session.requests.values())
        if not is_under_way:
            wish.end()
        return is_under_way

    def update(self, wish: Wish, interval_ms: int) -> None:
        """Want another interval; an answer will follow."""
        if wish.server_number is None:
            wish.request["interval_ms"] = interval_ms
            self._output.append(Answer(wish, "update"))
        else:
            self._ask(Request("update", wish, interval_ms))

    def ask(self, op: str, **fields: Any) -> Question:
        """Ask about the session: "list", "ping", or "limit", which then holds for all connections to come.

        A `Reply` will follow: at once, with nothing, if there is no session.
        """
        if op == "limit":
            self._questions.max_bytes_per_s = fields["max_bytes_per_s"]
        question = Question(op, fields)
        if self.is_welcome:
            self._questions.ask(question)
        else:
            self._output.append(Reply(question))
        return question

    def repeat(self, later: Later) -> None:
        """Ask again for what came too early."""
        if self._early.pop(later.request, None) is not None:
            self._queue.append(later.request)

    def take_messages(self) -> list[str]:
        """Return what is to be sent: nothing, while the server was asked too fast."""
        session = self._session
        if session is None or not session.is_welcome or TOO_FAST in self._early.values():
            return []
        messages = self._questions.take_messages(self._next_id)
        while self._queue:
            if len(session.requests) >= MOST_UNANSWERED:
                break
            request = self._queue.popleft()
            if request.op != "subscribe" and request.wish.server_number is None:
                self._output.append(Answer(request.wish, request.op))  # it has ended meanwhile
                continue
            number = self._next_id()
            session.requests[number] = request
            messages.append(json.dumps({"op": request.op, "id": number, **request.compose()}))
        return messages

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def take_output(self) -> list[Output]:
        """Return, once, what came of the calls so far."""
        output, self._output = self._output, []
        return output

    def _ask(self, request: Request) -> None:
        # What is wanted while there is no connection is asked for when there is one, all in one place.
        if self._session is not None:
            self._queue.append(request)

    # --- connections ---

    def connected(self, dialect: str | None = None) -> None:
        """Begin a connection; its first message will be the server's welcome.

        Args:
            dialect: that was agreed on, None: the one that is wanted.
        """
        self._session = Session(DIALECTS[dialect or self.dialect](self.texts), self.instruments)
        self._queue = deque(Request("subscribe", wish) for wish in self._wishes.values())
        self._early.clear()

    def disconnected(self) -> None:
        """End it; requests that were under way are made anew on the next one, as far as they still matter."""
        session, self._session = self._session, None
        if session is None:
            return
        self._output += self._questions.end()
        unanswered = [*session.requests.values(), *self._queue, *self._early]
        for wish in session.wishes.values():
            session.remember(wish)
            wish.channels.clear()
            wish.server_number = wish.slowed_to_ms = None
            wish.state, wish.reason = "RECONNECTING", ""
            if wish.is_withdrawn:
                wish.end()
        for request in unanswered:
            wish = request.wish
            if request.op == "update" and request.interval_ms is not None:
                wish.request["interval_ms"] = request.interval_ms
            if request.op != "subscribe":
                self._output.append(Answer(wish, request.op))
            elif wish.is_withdrawn:
                wish.end()
                self._output.append(Answer(wish, "unsubscribe"))
        self._queue.clear()
        self._early.clear()

    # --- messages ---

    def receive(self, message: str | bytes) -> list[Output]:
        """Take in a message; return what it tells, in order.

        Raises:
            ProtocolError: the server must not say this; drop the connection.
        """
        session = self._session
        assert session is not None
        if isinstance(message, bytes):
            if not session.is_welcome:
                raise ProtocolError("the server's first message is data and no welcome")
            self._take_rows(session, session.rows.receive(message))
        else:
            self._take_control(session, message)
        return self.take_output()

    def _take_control(self, session: Session, text: str) -> None:
        if sum(map(text.count, VALUES_BEGIN)) > MOST_VALUES:
            raise ProtocolError(f"the server's message has more than {MOST_VALUES:,} values")
        try:
            said = json.loads(text)
            op = said["op"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ProtocolError(f"the server's message is no JSON object with an op: {text[:80]!r}") from None
        if not session.is_welcome and op not in ("welcome", "closing"):
            raise ProtocolError(f"the server's first message is {op!r} and no welcome")
        take = HANDLERS.get(op) if isinstance(op, str) else None
        if take is None:
            return  # of a newer server
        try:
            take(self, session, said)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ProtocolError(f"the server's message {op!r} is not understood ({error!r}): {text[:200]!r}") from None

    def _take_welcome(self, session: Session, said: dict[str, Any]) -> None:
        if session.is_welcome:
            raise ProtocolError("the server bids welcome twice")
        if said["protocol"] != PROTOCOL_VERSION:
            raise ProtocolError(f"the server speaks protocol {said['protocol']}: use an ibfast of its release")
        heartbeat_s = float(said["heartbeat_s"])
        if not 0 < heartbeat_s < float("inf"):
            raise ValueError("heartbeat_s")
        self.heartbeat_s = heartbeat_s
        session.is_welcome = True
        self._questions.begin()

    def _take_subscribed(self, session: Session, said: dict[str, Any]) -> None:
        request = self._answered(session, said, "subscribe")
        wish = request.wish
        is_resumed = session.begin(wish, said, request.body)
        wish.state, wish.reason, wish.slowed_to_ms, wish.was_live = "LIVE", "", None, True
        if is_resumed:
            self._output.append(State(wish.ticker, wish.number, "RESUMED"))
        self._output.append(Answer(wish, "subscribe"))
        if wish.is_withdrawn:
            self._ask(Request("unsubscribe", wish))
        elif wish.request.get("interval_ms") != request.body.get("interval_ms"):
            self._ask(Request("update", wish, wish.request["interval_ms"]))

    def _take_updated(self, session: Session, said: dict[str, Any]) -> None:
        request = self._answered(session, said, "update")
        wish = request.wish
        session.change(wish, said)
        wish.request["interval_ms"] = request.interval_ms
        wish.slowed_to_ms = None
        self._output.append(Answer(wish, "update"))

    def _take_unsubscribed(self, session: Session, said: dict[str, Any]) -> None:
        wish = self._answered(session, said, "unsubscribe").wish
        self._end(session, wish)
        self._output.append(Answer(wish, "unsubscribe"))

    def _take_ended(self, session: Session, said: dict[str, Any]) -> None:
        wish = session.wishes.get(number_of(said, "subscription"))
        if wish is None:
            return  # it has crossed our own unsubscribe
        error = error_of(said)
        self._end(session, wish)
        if error.code != "DONE":
            wish.error = error
        wish.reason = str(error)
        self._output.append(State(wish.ticker, wish.number, "ENDED", wish.reason))

    def _take_error(self, session: Session, said: dict[str, Any]) -> None:
        error = error_of(said)
        if said.get("id") is None and error.code == TOO_FAST:
            # Which of the requests was not taken is not said: only a new connection makes it good.
            self._output.append(Closing(error.code, error.message))
            return
        if said.get("id") is None:
            raise ProtocolError(f"the server did not understand a message of this client: {error}")
        reply = self._questions.take(said, "")
        if reply is not None:
            self._output.append(reply)
            return
        request = session.requests.pop(said["id"], None)
        if request is None:
            return
        wish, op = request.wish, request.op
        if op == "subscribe" and wish.is_withdrawn:
            self._end(session, wish)
            self._output.append(Answer(wish, "unsubscribe"))
            return
        if error.code == TOO_FAST or (op == "subscribe" and wish.was_live and error.code in PASSING_CODES):
            wish.reason = str(error)
            self._early[request] = error.code
            self._output.append(Later(request, PASSING_CODES[error.code]))
            return
        if op == "subscribe":
            self._end(session, wish)
            wish.error, wish.reason = error, str(error)
            if wish.was_live:  # nobody waits for this answer
                self._output.append(State(wish.ticker, wish.number, "ENDED", wish.reason))
        elif op == "unsubscribe":  # then it is over already
            self._end(session, wish)
        self._output.append(Answer(wish, op, None if op == "unsubscribe" else error))

    def _end(self, session: Session, wish: Wish) -> None:
        session.end(wish)
        self._wishes.pop(wish.number, None)

    def _take_data(self, session: Session, said: dict[str, Any]) -> None:
        self._take_rows(session, session.rows.receive_data(said))

    def _take_snapshot(self, session: Session, said: dict[str, Any]) -> None:
        self._take_rows(session, session.rows.receive_snapshot(said))

    def _take_lag(self, session: Session, said: dict[str, Any]) -> None:
        rows = None if said.get("rows") is None else number_of(said, "rows")
        channel, from_seq, to_seq = (number_of(said, name) for name in ("channel", "from_seq", "to_seq"))
        self._output.append(session.lag(channel, from_seq, to_seq, rows, shown(text_of(said, "reason"), MOST_WORD)))

    def _take_gap(self, session: Session, said: dict[str, Any]) -> None:
        # A gap of everything is of no channel.
        instrument = -1 if said.get("channel") is None else session.instrument_of(number_of(said, "channel"))
        self._output.append(
            Gap(
                "" if instrument < 0 else self.instruments[instrument],
                instrument,
                Scope[said["scope"]] if isinstance(said["scope"], str) else Scope(said["scope"]),
                GapCause[said["cause"]] if isinstance(said["cause"], str) else GapCause(said["cause"]),
                bool(said["recovered"]),
                *(number_of(said, name) for name in ("first_seq", "last_seq", "first_ns", "last_ns")),
            )
        )

    def _take_state(self, session: Session, said: dict[str, Any]) -> None:
        wish = session.wishes.get(number_of(said, "subscription"))
        if wish is not None:
            wish.state = shown(text_of(said, "state"), MOST_WORD)
            wish.reason = shown(str(said.get("reason") or ""))
            self._output.append(State(wish.ticker, wish.number, wish.state, wish.reason))

    def _take_slowed(self, session: Session, said: dict[str, Any]) -> None:
        wish = session.wishes.get(number_of(said, "subscription"))
        if wish is not None:
            interval_ms = number_of(said, "interval_ms")
            wish.slowed_to_ms = interval_ms
            if "channels" in said:
                session.change(wish, said)
            self._output.append(State(wish.ticker, wish.number, "SLOWED", interval_ms=interval_ms))

    def _take_positions(self, session: Session, said: dict[str, Any]) -> None:
        for position in said["positions"]:
            session.complete(whole_of("positions", position))

    def _take_listed(self, session: Session, said: dict[str, Any]) -> None:
        self._take_reply("list", said)

    def _take_limited(self, session: Session, said: dict[str, Any]) -> None:
        self._take_reply("limit", said)

    def _take_pong(self, session: Session, said: dict[str, Any]) -> None:
        self._take_positions(session, said)
        self._take_reply("ping", said)

    def _take_reply(self, op: str, said: dict[str, Any]) -> None:
        reply = self._questions.take(said, op)
        if reply is None:
            raise ProtocolError(f"the server answers {op!r}, which was not asked under id {said.get('id')!r}")
        self._output.append(reply)

    def _take_closing(self, session: Session, said: dict[str, Any]) -> None:
        error = error_of(said)
        self._output.append(Closing(error.code, error.message))

    def _answered(self, session: Session, said: Mapping[str, Any], op: str) -> Request:
        request = session.requests.pop(said["id"], None)
        if request is None or request.op != op:
            raise ProtocolError(f"the server answers {op!r}, which was not asked under id {said['id']!r}")
        return request

    def _take_rows(self, session: Session, received: Received) -> None:
        self._output.extend(session.take(received))
        if received.rows.count:
            self._output.append(received.rows)


HANDLERS: Final[Mapping[str, Callable[[StreamClient, Session, dict[str, Any]], None]]] = {
    "welcome": StreamClient._take_welcome,
    "subscribed": StreamClient._take_subscribed,
    "updated": StreamClient._take_updated,
    "unsubscribed": StreamClient._take_unsubscribed,
    "ended": StreamClient._take_ended,
    "error": StreamClient._take_error,
    "data": StreamClient._take_data,
    "snapshot": StreamClient._take_snapshot,
    "lag": StreamClient._take_lag,
    "gap": StreamClient._take_gap,
    "state": StreamClient._take_state,
    "slowed": StreamClient._take_slowed,
    "heartbeat": StreamClient._take_positions,
    "subscriptions": StreamClient._take_listed,
    "limited": StreamClient._take_limited,
    "pong": StreamClient._take_pong,
    "closing": StreamClient._take_closing,
}


def _as_table(contract: Contract) -> dict[str, Any]:
    """Return a contract's fields that say something."""
    empty = asdict(Contract())
    return {name: value for name, value in asdict(contract).items() if value != empty[name]}
