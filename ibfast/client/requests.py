"""What a stream's client asks about the session as a whole, and what it tells its owner.

The rule of the file: a question is answered once, or its connection ends before; what is to hold for every connection
is asked for anew on each.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ibfast.client.rows import text_of
from ibfast.client.session import Request, Wish
from ibfast.client.updates import Arrival, Event
from ibfast.common.shown import shown
from ibfast.errors import StreamError

__all__ = ["Answer", "Closing", "Later", "Output", "Question", "Questions", "Reply", "error_of"]

MOST_WORD: Final = 64
"""Characters of a word of the protocol, such as a code."""

REMEDIES: Final[Mapping[str, str]] = {
    "FORBIDDEN": "ask the server's owner for a token that permits it",
    "TOO_MANY": "unsubscribe from something, or ask the server's owner for more",
    "UNKNOWN_CONTRACT": "check symbol, sec_type, exchange and currency",
    "AMBIGUOUS_CONTRACT": "add fields to the contract, such as primary_exchange or con_id",
    "NO_GATEWAY": "subscribe again when the server has its gateway",
    "EXPIRED": "ask the server's owner for a new token",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A request was answered. Attributes: whose, which ("subscribe", "update", "unsubscribe"), and why it failed."""

    wish: Wish
    op: str
    error: StreamError | None = None


@dataclass(frozen=True, slots=True)
class Closing:
    """The server ends the session."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Later:
    """A request came too early: call `repeat` with this after so many seconds."""

    request: Request
    after_s: float


@dataclass(eq=False, slots=True)
class Question:
    """Something that is asked about the session: "list", "ping" or "limit", and the fields of that."""

    op: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """A question was answered, or can't be any more: then there is neither what was said nor an error."""

    question: Question
    said: Mapping[str, Any] | None = None
    error: StreamError | None = None


Output: TypeAlias = Arrival | Event | Answer | Reply | Closing | Later


class Questions:
    """Those that are open.

    Attributes:
        max_bytes_per_s: asked for on every connection; 0: nothing is asked for.
    """

    def __init__(self) -> None:
        self.max_bytes_per_s = 0
        self._waiting: deque[Question] = deque()
        self._asked: dict[int, Question] = {}

    def ask(self, question: Question) -> None:
        """Have something asked, in the session that is there."""
        self._waiting.append(question)

    def begin(self) -> None:
        """Begin a session."""
        if self.max_bytes_per_s:
            self.ask(Question("limit", {"max_bytes_per_s": self.max_bytes_per_s}))

    def take_messages(self, next_id: Callable[[], int]) -> list[str]:
        """Return what is to be sent."""
        messages = []
        while self._waiting:
            question, number = self._waiting.popleft(), next_id()
            self._asked[number] = question
            messages.append(json.dumps({"op": question.op, "id": number, **question.fields}))
        return messages

    def take(self, said: Mapping[str, Any], op: str) -> Reply | None:
        """Return what an answer, or an error, is the reply to; None: to no question of that kind.

        Args:
            said: by the server.
            op: that it answers, "" for any.
        """
        number = said.get("id")
        question = self._asked.get(number) if isinstance(number, int) else None
        if question is None or op not in ("", question.op):
            return None
        del self._asked[number]  # type: ignore[arg-type]
        return Reply(question, said) if op else Reply(question, None, error_of(said))

    def end(self) -> list[Reply]:
        """End the session; return what can't be answered any more."""
        left = [*self._asked.values(), *self._waiting]
        self._asked.clear()
        self._waiting.clear()
        return [Reply(question) for question in left]


def error_of(said: Mapping[str, Any]) -> StreamError:
    """Return the error that a message tells, with the remedy where one is known."""
    code = shown(text_of(said, "code"), MOST_WORD)
    return StreamError(code, shown(str(said.get("message", ""))), REMEDIES.get(code, ""))
