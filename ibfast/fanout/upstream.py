"""What the subscribers together want of the gateway: asked for once, shared, given up when nobody wants it any more.

The rule of the file: it waits for the gateway, and knows neither subscribers' connections nor channels. A subscription
outlives its last user by a moment, so that a client that comes back finds what it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ibfast.connection.stream import DataType, Stream, Wanted
from ibfast.contracts import Contract
from ibfast.errors import Error, FeedError, NotConnectedError, RequestError
from ibfast.fanout.encoding.channels import Tap, taps_of
from ibfast.fanout.encoding.state_cache import Since
from ibfast.fanout.messages import Code, RefusedError
from ibfast.feed.feed import Feed
from ibfast.policy.subscription import SubscriptionState

__all__ = ["Source", "Upstream", "Upstreams", "line_keys", "lines_of"]

LEVEL_1 = {DataType.TICKS, DataType.TRADES, DataType.QUOTES, DataType.GREEKS}
"""What one market-data line brings."""

Line = tuple[Hashable, str]

NO_SUCH_CONTRACT = 200
AMBIGUOUS = "is ambiguous"

IDENTIFY_S = 10.0
"""How long a subscriber waits for a session and for the gateway's answer: a reconnect takes a few seconds, and who
subscribes while there is no gateway is to learn it soon."""


class Source(Protocol):
    """Where data is asked for: a connection manager or a pool, which fills the feed in this thread."""

    async def wanted(self, contract: object, data_type: str, **options: Any) -> tuple[Contract, Wanted]:
        """Return the contract that is meant, and what a subscription to it asks for."""

    async def subscribe(self, contract: object, data_type: str = ..., *, priority: int = 0, **options: Any) -> Stream:
        """Subscribe to market data."""


class Upstream:
    """One subscription at the gateway, shared by all who want it.

    Attributes:
        opening: opens the source's stream.
        stream: the source's, once it is open.
        since: where the state of its rows begins; once it is open.
        users: whoever wants to hear of its state and its gaps.
        told: the state that all users were sent last; "" where they may have been sent different ones.
    """

    def __init__(self, key: tuple[Hashable, DataType]) -> None:
        self.key = key
        self.opening: asyncio.Task[Stream]
        self.since: Since
        self.shares = 0
        self.users: set[Any] = set()
        self.told = ""
        self.end: asyncio.TimerHandle | None = None

    @property
    def data_type(self) -> DataType:
        """What was asked for."""
        return self.key[1]

    @property
    def stream(self) -> Stream:
        """The source's stream; only after `acquire`."""
        return self.opening.result()

    @property
    def generation(self) -> int:
        """Of the subscription at the gateway: one that begins later has a larger one."""
        return self.stream.subscription.order

    @property
    def state(self) -> str:
        """How it fares, in the words of a subscription; a moment's quiet is no news."""
        state = self.stream.state
        return str(SubscriptionState.LIVE if state is SubscriptionState.QUIET else state)

    @property
    def is_over(self) -> bool:
        """Whether nothing will come of it any more."""
        return not self.stream.live

    @property
    def ending(self) -> tuple[Code, str]:
        """Why it is over."""
        error = self.stream.error
        if isinstance(error, RequestError):
            return Code.REFUSED, f"{error.code}: {error.message}"
        return Code.NO_GATEWAY, str(error or "the server's session with the gateway has ended")


class Upstreams:
    """All subscriptions at the gateway that subscribers share.

    Args:
        feed: which `source` fills.
        source: where data is asked for.
        linger_s: how long a subscription outlives its last user.
    """

    def __init__(self, feed: Feed, source: Source, linger_s: float) -> None:
        self._feed = feed
        self._source = source
        self._linger_s = linger_s
        self._open: dict[tuple[Hashable, DataType], Upstream] = {}
        self._former: set[Upstream] = set()  # over and replaced; kept until the last of their users has been told
        self._tenures = itertools.count(1)
        self._judged = np.zeros(1024, np.int8)

    def __iter__(self) -> Iterator[Upstream]:
        return iter([upstream for upstream in (*self._open.values(), *self._former) if _is_open(upstream)])

    async def identify(self, contract: Contract, data_type: str) -> Contract:
        """Return the one contract that is meant; no line is opened for it.

        While the source connects again, this waits for `IDENTIFY_S` at most.

        Raises:
            RefusedError: there is none, or no such data of it; says why.
        """
        with _refusals():
            try:
                async with asyncio.timeout(IDENTIFY_S):
                    meant, _ = await self._source.wanted(contract, taps_of(contract, data_type)[0].data_type)
            except TimeoutError:
                raise NotConnectedError(f"there is no answer from the gateway within {IDENTIFY_S:.0f} s") from None
            return meant

    async def acquire(self, contract: Contract, data_type: str) -> tuple[tuple[Upstream, ...], tuple[Tap, ...]]:
        """Have the gateway send what a subscriber's data type needs of a contract; `release` gives it back.

        Args:
            contract: as `identify` has returned it, so that it is shared however it was described.
            data_type: of the subscriber.

        Returns:
            The subscriptions at the gateway, and what their rows are.

        Raises:
            RefusedError: that can't be had; says why.
        """
        with _refusals():
            taps = taps_of(contract, data_type)
        taken: list[Upstream] = []
        try:
            for part in dict.fromkeys(tap.data_type for tap in taps):
                upstream = await self._acquire(contract, part)
                taken.append(upstream)
        except BaseException:
            self.release(taken)
            raise
        return tuple(taken), taps

    async def _acquire(self, contract: Contract, data_type: DataType) -> Upstream:
        key = (contract.identity, data_type)
        upstream = self._open.get(key)
        if upstream is not None and upstream.opening.done() and (not _is_open(upstream) or upstream.is_over):
            self._replace(upstream)
            upstream = None
        if upstream is None:
            upstream = self._open[key] = Upstream(key)
            upstream.opening = asyncio.get_running_loop().create_task(self._subscribe(upstream, contract))
            upstream.opening.add_done_callback(_retrieve)
        upstream.shares += 1
        if upstream.end is not None:
            upstream.end.cancel()
            upstream.end = None
        try:
            await asyncio.shield(upstream.opening)
        except BaseException:
            if upstream.opening.done() and self._open.get(key) is upstream and not _is_open(upstream):
                del self._open[key]
            self.release([upstream])
            raise
        return upstream

    def _replace(self, upstream: Upstream) -> None:
        """Make room for a new subscription in place of one that is over, which its users have yet to be told."""
        self._forget(upstream)
        if upstream.shares:
            self._former.add(upstream)

    async def _subscribe(self, upstream: Upstream, contract: Contract) -> Stream:
        with _refusals():
            stream = await self._source.subscribe(contract, upstream.data_type)
        subscription = stream.subscription
        # The request may be older than this: others in this process, or other upstreams, may have had it already.
        since_seq = self._feed.seq if subscription.since_seq is None else subscription.since_seq
        tenures = [other.since.tenure for other in self if other.stream.subscription is subscription]
        upstream.since = Since(tenures[0] if tenures else next(self._tenures), since_seq)
        self._judged[:] = 0  # whose rows a request brings may have to be judged anew
        return stream

    def release(self, upstreams: Iterable[Upstream]) -> None:
        """Give shares back; what nobody has any more ends soon."""
        for upstream in upstreams:
            upstream.shares -= 1
            if upstream.shares:
                continue
            self._former.discard(upstream)
            if self._open.get(upstream.key) is not upstream:
                continue
            if self._linger_s and _is_open(upstream) and not upstream.is_over:
                loop = asyncio.get_running_loop()
                upstream.end = loop.call_later(self._linger_s, self._forget, upstream)
            else:
                self._forget(upstream)

    def _forget(self, upstream: Upstream) -> None:
        if self._open.get(upstream.key) is upstream:
            del self._open[upstream.key]
        if upstream.end is not None:
            upstream.end.cancel()
        if not upstream.opening.done():
            upstream.opening.cancel()
        elif _is_open(upstream):
            upstream.stream.unsubscribe()
        self._judged[:] = 0

    async def close(self) -> None:
        """End them all."""
        upstreams = list(self._open.values())
        self._former.clear()
        for upstream in upstreams:
            self._forget(upstream)
        await asyncio.gather(*(upstream.opening for upstream in upstreams), return_exceptions=True)

    def keeps(self, req_ids: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell of rows whether they are of these subscriptions: others may bring the same instrument's data too."""
        if not len(req_ids):
            return np.empty(0, bool)
        # 0 is no subscription's. Ids that were never given are mapped to it: a gateway may send any.
        req_ids = np.where((req_ids > 0) & (req_ids <= self._feed.core.last_req_id), req_ids, 0)
        most = int(req_ids.max())
        if most >= len(self._judged):
            grown = np.zeros(2 * most + 1, np.int8)
            grown[: len(self._judged)] = self._judged
            self._judged = grown
        verdicts = self._judged[req_ids]
        if not verdicts.all():
            self._judge(req_ids[verdicts == 0])
            verdicts = self._judged[req_ids]
        kept: NDArray[np.bool_] = verdicts > 0
        return kept

    def _judge(self, req_ids: NDArray[Any]) -> None:
        own = {req_id for upstream in self for req_id in upstream.stream.subscription.req_ids}
        for req_id in np.unique(req_ids).tolist():
            self._judged[req_id] = 1 if req_id in own else -1


def lines_of(contract: Contract, data_type: str) -> list[Line]:
    """Return what a subscriber's data type takes at IB, one for each subscription at the gateway.

    Raises:
        RefusedError: there is no such data of the contract.
    """
    with _refusals():
        parts = dict.fromkeys(tap.data_type for tap in taps_of(contract, data_type))
    return [_line(contract.identity, part) for part in parts]


def line_keys(upstreams: Iterable[Upstream]) -> list[Line]:
    """Return what these take at IB, as `lines_of` does."""
    return [_line(*upstream.key) for upstream in upstreams]


def _line(identity: Hashable, data_type: DataType) -> Line:
    return identity, "level 1" if data_type in LEVEL_1 else str(data_type)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Have what the source raises told to the subscriber, by its code."""
    try:
        yield
    except NotConnectedError as error:
        raise RefusedError(Code.NO_GATEWAY, str(error)) from None
    except TimeoutError as error:
        raise RefusedError(Code.NO_GATEWAY, f"the gateway does not answer: {error}") from None
    except RequestError as error:
        code = Code.UNKNOWN_CONTRACT if error.code == NO_SUCH_CONTRACT else Code.REFUSED
        raise RefusedError(code, f"{error.code}: {error.message}") from None
    except FeedError:
        raise RefusedError(Code.TOO_MANY, "the server has no room for another instrument: try again later") from None
    except Error as error:
        raise RefusedError(Code.REFUSED, str(error)) from None
    except ValueError as error:
        text = str(error)
        raise RefusedError(Code.AMBIGUOUS_CONTRACT if AMBIGUOUS in text else Code.BAD_FIELD, text) from None


def _is_open(upstream: Upstream) -> bool:
    opening = upstream.opening
    return opening.done() and not opening.cancelled() and opening.exception() is None


def _retrieve(opening: asyncio.Task[Stream]) -> None:
    """Look at an error for which nobody may be left to wait."""
    if not opening.cancelled():
        opening.exception()
