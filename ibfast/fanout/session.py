"""One connection's conversation: what it asks for is permitted, carried out and answered.

The rule of the file: every request is answered, by what it asked for or by an error with a code, and a wrong one
changes nothing. It waits for the gateway, but knows no socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from ibfast.contracts import Contract
from ibfast.fanout.access.holders import Holder, Holders
from ibfast.fanout.access.limits import InstrumentBudgets
from ibfast.fanout.access.tokens import Grant
from ibfast.fanout.encoding.batcher import Batcher
from ibfast.fanout.encoding.channels import INTERVALS_MS, Tap
from ibfast.fanout.encoding.dialect import Dialect, Outlet
from ibfast.fanout.encoding.histories import Histories, Recall
from ibfast.fanout.faults import Faults
from ibfast.fanout.gauges import Tally
from ibfast.fanout.messages import (
    PROTOCOL_VERSION,
    Code,
    Limit,
    ListSubscriptions,
    Ping,
    RefusedError,
    Request,
    Resume,
    Subscribe,
    Unsubscribe,
    Update,
    parse,
)
from ibfast.fanout.queries import ContractQuestions
from ibfast.fanout.subscriber import FAILED, Subscriber
from ibfast.fanout.subscription import Subscription
from ibfast.fanout.turns import Turns
from ibfast.fanout.upstream import Upstream, Upstreams, line_keys, lines_of

__all__ = ["Hub", "Session"]

MS_PER_S = 1000
SNAPSHOT_WAIT_S = 5.0
"""How long the first data of an instrument is awaited for a snapshot."""


@dataclass(slots=True)
class Hub:
    """What all connections of a server have in common.

    Attributes:
        batcher: where frames come from.
        upstreams: what is wanted of the gateway.
        life: names the life of the feed's rings.
        server: its name and version.
        faults: where faults of the server's own are reported.
        heartbeat_s: as `welcome` tells it.
        turns: when work is done that takes time.
        histories: what clients that come back have missed.
        questions: to the gateway, for contracts.
        holders: of tokens.
        dialects: by subprotocol.
        tally: what has happened.
        budgets: of new instruments, by the names of tokens.
    """

    batcher: Batcher
    upstreams: Upstreams
    life: str
    server: str
    faults: Faults
    heartbeat_s: float
    turns: Turns
    histories: Histories
    questions: ContractQuestions
    holders: Holders
    dialects: Mapping[str, Dialect] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    budgets: InstrumentBudgets = field(default_factory=InstrumentBudgets)


class Session:
    """One connection.

    Args:
        hub: what it has in common with the others.
        outlet: where it is written to.
        dialect: in which data is said.
        grant: who it is, and what it may have.

    Attributes:
        subscriber: what it has.
        grant: as given.
        holder: who has the token, with all its connections.
        max_bytes_per_s: its own bandwidth, 0: any.
    """

    def __init__(self, hub: Hub, outlet: Outlet, dialect: Dialect, grant: Grant) -> None:
        self._hub = hub
        self._outlet = outlet
        self._opening: set[asyncio.Task[None]] = set()
        self._resuming = asyncio.Lock()
        self.grant = grant
        self._name = None if grant.own is None else grant.name
        self.holder = hub.holders.arrive(self._name, grant.own, self._count)
        self.max_bytes_per_s = grant.permissions.bandwidth(0)
        give_back = partial(_give_back, hub.upstreams, self.holder)
        self.subscriber = Subscriber(hub.batcher, dialect, outlet, hub.life, hub.histories, give_back, hub.tally)

    def welcome(self) -> None:
        """Speak first."""
        hub = self._hub
        self.subscriber.say(
            "welcome",
            protocol=PROTOCOL_VERSION,
            server=hub.server,
            time_ns=time.time_ns(),
            intervals_ms=INTERVALS_MS,
            heartbeat_s=hub.heartbeat_s,
            permissions=self.grant.permissions.as_table(),
        )

    def heartbeat(self) -> None:
        """Tell that the server lives."""
        self.subscriber.say("heartbeat", time_ns=time.time_ns(), positions=self.subscriber.positions)

    def handle(self, text: str | bytes) -> None:
        """Carry out a message."""
        with self._outlet.answering():
            try:
                self._carry_out(parse(text))
            except RefusedError as refusal:
                self._say_error(refusal)

    def _say_error(self, refusal: RefusedError) -> None:
        self.subscriber.say("error", id=refusal.request_id, code=refusal.code, message=refusal.message)

    def _carry_out(self, request: Request) -> None:
        try:
            match request:
                case Subscribe():
                    self._subscribe(request)
                case Update():
                    self._update(request)
                case Unsubscribe():
                    self.subscriber.close(request.subscription)
                    self.subscriber.say("unsubscribed", id=request.id, subscription=request.subscription)
                case Limit():
                    was_capped = self._outlet.is_capped
                    self.max_bytes_per_s = self.grant.permissions.bandwidth(request.max_bytes_per_s)
                    if self._outlet.is_capped != was_capped:
                        self.subscriber.reseat()
                    self.subscriber.say("limited", id=request.id, max_bytes_per_s=self.max_bytes_per_s)
                case ListSubscriptions():
                    subscriptions = [self._listed(each) for each in self.subscriber.subscriptions.values()]
                    self.subscriber.say("subscriptions", id=request.id, subscriptions=subscriptions)
                case Ping():
                    self.subscriber.say(
                        "pong",
                        id=request.id,
                        data=request.data,
                        time_ns=time.time_ns(),
                        positions=self.subscriber.positions,
                    )
        except RefusedError as refusal:
            raise RefusedError(refusal.code, refusal.message, request.id) from None

    def _listed(self, subscription: Subscription) -> dict[str, object]:
        request = subscription.request
        return {
            "subscription": subscription.number,
            "data_type": request.data_type,
            "mode": request.mode,
            "interval_ms": subscription.interval_ms,
            "state": subscription.upstreams[0].state,
            "channels": [subscription.described(self._hub.batcher.feed)],
        }

    def _count(self) -> int:
        """Return how many subscriptions the connection has, or has asked for."""
        return len(self._opening) + len(self.subscriber.subscriptions)

    def _subscribe(self, request: Subscribe) -> None:
        most = self.grant.permissions.subscriptions
        if most is not None and self._count() >= most:
            raise RefusedError(Code.TOO_MANY, f"there may be {most} subscriptions: end another one first")
        if request.contract.symbol and not request.contract.con_id:
            # What can't be permitted whatever IB makes of it is not worth a question.
            self._require_permission(request.contract, request, request.interval_ms)
        self.holder.require_room()
        opening = asyncio.get_running_loop().create_task(self._open(request))
        self._opening.add(opening)
        opening.add_done_callback(lambda opening: self._opened(request, opening))

    async def _open(self, request: Subscribe) -> None:
        upstreams = self._hub.upstreams
        try:
            contract = await self._hub.questions.answer(
                self, self.grant.name, request.contract, request.data_type, partial(self._refusal, request=request)
            )
            taken, taps = await self._acquire(contract, request.data_type)
            held = list(taken)

            def begin(recall: Recall | None = None) -> None:
                # What a client has missed is its due, however much that is.
                with self._outlet.answering() if recall is None else contextlib.nullcontext():
                    self._begin(request, contract, taken, taps, recall)
                held.clear()  # from here on they are the subscription's

            try:
                self._require_pace(contract, request)
                if request.resume is None or request.mode == "snapshot":
                    await self._hub.turns.run(self.holder, begin)
                else:
                    await self._resume(request, request.resume, taken, taps, begin)
            except BaseException:
                upstreams.release(held)
                self.holder.give_lines(line_keys(held))
                raise
        except RefusedError as refusal:
            self._say_error(RefusedError(refusal.code, refusal.message, request.id))

    def _begin(
        self,
        request: Subscribe,
        contract: Contract,
        taken: tuple[Upstream, ...],
        taps: tuple[Tap, ...],
        recall: Recall | None,
    ) -> None:
        for upstream in taken:
            if upstream.is_over:  # since it was acquired
                raise RefusedError(*upstream.ending)
        until_s = time.monotonic() + SNAPSHOT_WAIT_S if request.mode == "snapshot" else None
        self.subscriber.open(request, contract, taken, taps, recall=recall, waits_until_s=until_s)

    async def _resume(
        self,
        request: Subscribe,
        resume: Resume,
        taken: tuple[Upstream, ...],
        taps: tuple[Tap, ...],
        begin: Callable[..., None],
    ) -> None:
        """Begin with what was missed. A connection has one after the other, each once it has taken the one before."""
        turns, recalls = self._hub.turns, list[Recall]()  # one at most; whatever is cancelled when, it is closed

        def recall() -> None:
            found = self.subscriber.recall(request, resume, taken, taps)
            recalls.extend([] if found is None else [found])

        async with self._resuming:
            await self._outlet.drained()
            try:
                await turns.run(self.holder, recall)
                for found in recalls:
                    while not await turns.run(self.holder, found.advance):
                        pass
                await turns.run(self.holder, lambda: begin(*recalls))
            finally:
                for found in recalls:
                    found.close()

    async def _acquire(self, contract: Contract, data_type: str) -> tuple[tuple[Upstream, ...], tuple[Tap, ...]]:
        """Have the gateway send it, if the token may have one more instrument that the feed does not know."""
        feed, budgets, name = self._hub.batcher.feed, self._hub.budgets, self.grant.name
        most = self.grant.permissions.new_instruments
        is_counted = most is not None and not feed.has_instrument(contract)
        wait_s = budgets.take(name, most, time.monotonic()) if most is not None and is_counted else 0.0
        if wait_s:
            raise RefusedError(
                Code.TOO_MANY,
                f"the token permits {most} new instruments in an hour: ask for another one in {wait_s:.0f} s",
            )
        try:
            lines = lines_of(contract, data_type)
            self.holder.take_lines(lines)
            try:
                return await self._hub.upstreams.acquire(contract, data_type)
            except BaseException:
                self.holder.give_lines(lines)
                raise
        except BaseException:
            if is_counted and not feed.has_instrument(contract):
                budgets.give_back(name)
            raise

    def _opened(self, request: Subscribe, opening: asyncio.Task[None]) -> None:
        self._opening.discard(opening)
        error = None if opening.cancelled() else opening.exception()
        if error is not None:  # a fault of the server's: even then an answer is owed
            self._say_error(RefusedError(Code.REFUSED, FAILED, request.id))
            if isinstance(error, Exception):
                self._hub.faults.note("subscription", error)

    def _update(self, request: Update) -> None:
        subscription = self.subscriber.subscriptions.get(request.subscription)
        if subscription is not None:
            self._require_permission(subscription.contract, subscription.request, request.interval_ms)
            self._require_pace(subscription.contract, subscription.request)
        subscription = self.subscriber.change(request.subscription, request.interval_ms)
        self.subscriber.say(
            "updated",
            id=request.id,
            subscription=subscription.number,
            interval_ms=subscription.seat.channel.interval_ms,
            channels=[self.subscriber.described(subscription, subscription.lane.seq)],
        )
        self.subscriber.snapshot(subscription)

    def _refusal(self, contract: Contract, request: Subscribe) -> str | None:
        return self.grant.permissions.allows(contract, request.data_type, request.mode, request.interval_ms)

    def _require_permission(self, contract: Contract, request: Subscribe, interval_ms: int) -> None:
        reason = self.grant.permissions.allows(contract, request.data_type, request.mode, interval_ms)
        if reason is not None:
            raise RefusedError(Code.FORBIDDEN, reason)

    def _require_pace(self, contract: Contract, request: Subscribe) -> None:
        """Refuse a state that is asked for too soon after the last: the least interval counts for these as for data."""
        if self.holder.is_too_soon((contract.identity, request.data_type)):
            least_ms = self.grant.permissions.least_interval_ms
            reason = f"the token permits {request.data_type} of {contract.symbol} to be asked for once in {least_ms} ms"
            raise RefusedError(Code.TOO_FAST, reason)

    def stop(self) -> None:
        """Give everything back, and end what is being opened: none of it is sent, or asked of the gateway."""
        for opening in self._opening:
            opening.cancel()
        self.subscriber.leave()

    async def finish(self) -> None:
        """Stop, because the connection has ended, and wait until nothing is being opened."""
        self.stop()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._hub.holders.leave(self._name, self._count)


def _give_back(upstreams: Upstreams, holder: Holder, subscription: Subscription) -> None:
    """Release what a subscription had. No method, since a session that its subscriber refers to is a circle."""
    upstreams.release(subscription.upstreams)
    holder.give_lines(line_keys(subscription.upstreams))
