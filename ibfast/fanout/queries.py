"""Questions to the gateway for contracts: few at a time, connections in turn, and none that was answered lately.

The rule of the file: a question costs the gateway a request, of which all its users share few. So nobody has many of
them open, the same is asked once for all who ask, and a holder of a token has few answers that come to nothing. The
clock is a parameter.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from ibfast.common.lately import Lately
from ibfast.contracts import Contract
from ibfast.fanout.access.limits import InstrumentBudgets
from ibfast.fanout.messages import Code, RefusedError

__all__ = ["ContractQuestions"]

MOST_OPEN = 16
"""Questions that the gateway has at a time: those of half a second, so that others wait no longer."""

MOST_PER_OWNER = 4
"""Of one connection."""

MOST_VAIN = 300
"""Of one holder in an hour: answers that there is no such contract, or one that the token does not permit."""

VAIN_S = 60.0
"""An answer that there is no such contract holds so long."""

MOST_REFUSALS = 4096
MOST_CONTRACT_BYTES = 1 << 24

VAIN_CODES = {Code.UNKNOWN_CONTRACT, Code.AMBIGUOUS_CONTRACT}

Key = tuple[Contract, str]
Ask = Callable[[Contract, str], Awaitable[Contract]]
Refusal = Callable[[Contract], str | None]
"""Tells why the holder of a token may not have a contract, None if it may."""


@dataclass(slots=True)
class _Question:
    answer: asyncio.Task[Contract]
    waiting: int = 0


class ContractQuestions:
    """Which contract a description means, as the gateway knows.

    Args:
        ask: asks the gateway for a contract and a data type; raises a RefusedError with the reason.
        now_s: a clock.
    """

    def __init__(self, ask: Ask, now_s: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._now_s = now_s
        self._questions: dict[Key, _Question] = {}
        self._open: Counter[Hashable] = Counter()
        self._queued: dict[Hashable, deque[asyncio.Future[None]]] = {}  # whose turn is next comes first
        self._known: Lately[Key, Contract] = Lately(MOST_CONTRACT_BYTES)
        self._refusals: OrderedDict[Key, tuple[float, RefusedError]] = OrderedDict()
        self._vain = InstrumentBudgets()

    @property
    def open(self) -> int:
        """How many questions the gateway has."""
        return self._open.total()

    async def answer(
        self,
        owner: Hashable,
        holder: str,
        contract: Contract,
        data_type: str,
        refusal: Refusal,
    ) -> Contract:
        """Return the contract that is meant.

        Args:
            owner: who asks: a connection. They have turns.
            holder: the name of its token.
            contract: the description.
            data_type: of the subscriber.
            refusal: what the token permits.

        Raises:
            RefusedError: there is none, it is not permitted, or the holder has asked in vain too often.
        """
        key = contract, data_type
        known = self._known.get(key)
        is_new = known is None
        if known is None:
            self._raise_if_refused(key)
            try:
                known = await self._asked(owner, holder, key)
            except RefusedError as error:
                if error.code in VAIN_CODES:
                    self._vain.take(holder, MOST_VAIN, self._now_s())
                raise
        reason = refusal(known)
        if reason is not None:
            if is_new:
                self._vain.take(holder, MOST_VAIN, self._now_s())
            raise RefusedError(Code.FORBIDDEN, reason)
        return known

    def _raise_if_refused(self, key: Key) -> None:
        while self._refusals:
            until_s, _ = next(iter(self._refusals.values()))
            if until_s > self._now_s() and len(self._refusals) <= MOST_REFUSALS:
                break
            self._refusals.popitem(last=False)
        if key in self._refusals:
            error = self._refusals[key][1]
            raise RefusedError(error.code, error.message)

    async def _asked(self, owner: Hashable, holder: str, key: Key) -> Contract:
        """Share a question with all who ask the same; the last one who gives up takes it back."""
        question = self._questions.get(key)
        if question is None:
            answer = asyncio.get_running_loop().create_task(self._ask_in_turn(owner, holder, key))
            answer.add_done_callback(_retrieve)
            question = self._questions[key] = _Question(answer)
        question.waiting += 1
        try:
            return await asyncio.shield(question.answer)
        finally:
            question.waiting -= 1
            if not question.waiting:
                question.answer.cancel()
                if self._questions.get(key) is question:
                    del self._questions[key]

    async def _ask_in_turn(self, owner: Hashable, holder: str, key: Key) -> Contract:
        await self._turn(owner)
        try:
            wait_s = self._vain.wait_s(holder, MOST_VAIN, self._now_s())
            if wait_s:
                reason = f"the token has asked in vain for {MOST_VAIN} contracts within an hour"
                raise RefusedError(Code.TOO_MANY, f"{reason}: ask again in {wait_s:.0f} s")
            found = await self._ask(*key)
        except RefusedError as error:
            if error.code in VAIN_CODES:
                self._refusals[key] = self._now_s() + VAIN_S, error
            raise
        finally:
            self._end_turn(owner)
        self._known[key] = found
        return found

    async def _turn(self, owner: Hashable) -> None:
        """Wait until the owner may have one more question open, and count it."""
        if self.open < MOST_OPEN and self._open[owner] < MOST_PER_OWNER:
            self._open[owner] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queued.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._drop(owner, turn)
            else:
                self._end_turn(owner)
            raise

    def _drop(self, owner: Hashable, turn: asyncio.Future[None]) -> None:
        queue = self._queued.get(owner, deque())
        if turn in queue:
            queue.remove(turn)
            if not queue:
                del self._queued[owner]

    def _end_turn(self, owner: Hashable) -> None:
        self._open[owner] -= 1
        if not self._open[owner]:
            del self._open[owner]
        for other in tuple(self._queued):
            if self.open < MOST_OPEN and self._open[other] < MOST_PER_OWNER:
                self._let_one(other)

    def _let_one(self, owner: Hashable) -> None:
        """Let the first one of an owner ask who has not given up; the others come behind those of all other owners."""
        queue = self._queued.pop(owner)
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                self._open[owner] += 1
                break
        if queue:
            self._queued[owner] = queue


def _retrieve(answer: asyncio.Task[Contract]) -> None:
    """Look at an error for which nobody may be left to wait."""
    if not answer.cancelled():
        answer.exception()
