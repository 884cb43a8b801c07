"""A made-up market: seeded, endless, and the same whenever and in whatever pieces it is read.

The rule of the file: what happens in a stretch of time depends on the seed, the instrument and the time alone, never on
what was asked before. So live events, historical ticks and a second run agree. Sans-I/O; no clock.

The value of an instrument is noise summed over time scales from one second to 12 days, each twice the one below and √2
times as strong, so that it moves like a Brownian motion in the short run and stays around its level in the long run.
Time is cut into blocks; within a block

- events arrive in clusters: a self-exciting (Hawkes) process in its cluster form, A. G. Hawkes, D. Oakes, "A Cluster
  Process Representation of a Self-Exciting Process", Journal of Applied Probability 11 (1974);
- most quotes change one size, few change the prices;
- trades take place at the bid or the ask, mostly on the same side as the one before; a few between them, off the grid;
- sizes are mostly round lots; odd lots are unreported trades.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from ibfast.records import DAY_S, NS_PER_S
from ibfast.sim.clock import Clock
from ibfast.sim.events import Bars, Event, Level, QuoteEvent, Size, Statistics, TradeEvent
from ibfast.sim.greeks import YEAR_S, option_price
from ibfast.sim.instruments import Instrument
from ibfast.sim.noise import mix, noise, walk
from ibfast.sim.universe import Universe

__all__ = ["Market"]


_FUTURE_PREMIUM = 1.004

_EVENTS_PER_BLOCK = 128
_SHORTEST_BLOCK, _LONGEST_BLOCK = 27, 33
"""Powers of two in ns: 0.13 s and 8.6 s."""

_BRANCHING = 0.6
"""How many further events an event triggers, on average."""
_REACTION_NS = 20e6
_TRADE_SHARE = 0.2
_PRICE_MOVE_SHARE = 0.03
_SIDE_KEPT = 0.85
_OFF_GRID_SHARE = 0.05
_ODD_LOT_SHARE = 0.25
_TYPICAL_LOTS = 4
_ODD_LOT_CONDITION = "   I"
_OFF_EXCHANGE = "FINRA"
_TRADING_EXCHANGES = ("ISLAND", "ARCA", "NYSE", "BATS", "DRCTEDGE", "IEX", "MEMX")
_BAR_SAMPLES = 8
_VOLUME_OCTAVE = 60
_NO_VOLUME = -1
_DEPTH_SIZE_BITS = 30
_DEEPEST_LOTS = 20


@dataclass(frozen=True, slots=True)
class _Traits:
    """Parameters of an instrument's events, computed once."""

    instrument: Instrument
    key: int
    block_bits: int
    phase_ns: int
    events_per_block: float
    decimals: int
    exchanges: tuple[str, ...]

    @property
    def con_id(self) -> int:
        return self.instrument.con_id

    def block_at(self, ts_ns: int) -> int:
        """Return the number of the block that holds `ts_ns`; the phase keeps blocks from beginning all at once."""
        return (ts_ns + self.phase_ns) >> self.block_bits


class Market:
    """A source of events for every instrument of a universe.

    Args:
        universe: the instruments.
        seed: another seed, another market.
        rate: events per second of all instruments together; each has its share by its `activity`.
    """

    paces_itself = False

    def __init__(self, universe: Universe, *, seed: int = 1, rate: float = 500.0) -> None:
        self.universe = universe
        total = sum(instrument.activity for instrument in universe) or 1.0
        self._traits = {i.con_id: _traits(i, seed, rate * i.activity / total) for i in universe}
        self._pending: list[tuple[int, int, Event, Iterator[Event]]] = []
        self._watched: set[int] = set()
        self._past_block = lru_cache(maxsize=64)(self._make_block)

    def begin(self, clock: Clock) -> None:
        """Leave the clock as it is: this market is open at any time."""

    def watch(self, con_id: int, now_ns: int, *, quotes: bool = True, trades: bool = True) -> None:
        """Deliver this instrument's events after `now_ns` too, quotes and trades alike."""
        if con_id not in self._watched:
            self._watched.add(con_id)
            events = self._events_after(self._traits[con_id], now_ns)
            heapq.heappush(self._pending, (*self._next(events), events))

    def unwatch(self, con_id: int) -> None:
        """Deliver them no longer."""
        self._watched.discard(con_id)
        self._pending = [entry for entry in self._pending if entry[1] != con_id]
        heapq.heapify(self._pending)

    def advance(self, clock: Clock) -> Sequence[Event]:
        """Return the events of all watched instruments up to now, in order, each once."""
        pending, events, to_ns = self._pending, [], clock.now_ns()
        while pending and pending[0][0] <= to_ns:
            _, _, event, following = pending[0]
            events.append(event)
            heapq.heapreplace(pending, (*self._next(following), following))
        return events

    def latest(self, con_id: int, now_ns: int) -> tuple[QuoteEvent | None, TradeEvent | None]:
        """Return the quote and the reported trade that stand at `now_ns`."""
        traits = self._traits[con_id]
        instrument, block = traits.instrument, traits.block_at(now_ns)
        quote: QuoteEvent | None = None
        trade: TradeEvent | None = None
        for events in (self._past_block(con_id, block - 1), self._past_block(con_id, block)):
            for event in events[: bisect_right(events, now_ns, key=itemgetter(0))]:
                if isinstance(event, QuoteEvent):
                    quote = event
                elif not event.unreported:
                    trade = event
        if quote is None and trade is None:
            low = float(_to_grid(np.array([self.value(con_id, now_ns)]), traits)[0])
            high = round(low + instrument.spread_ticks * instrument.min_tick, traits.decimals)
            lot = instrument.round_lot
            if instrument.has_quotes:
                quote = QuoteEvent(now_ns, con_id, low, high, lot, lot)
            if instrument.has_trades:
                trade = TradeEvent(now_ns, con_id, low, lot, traits.exchanges[0], "", unreported=False)
        return quote, trade

    def past_events(self, con_id: int, start_ns: int, end_ns: int) -> list[Event]:
        """Return one instrument's events in [start_ns, end_ns)."""
        traits = self._traits[con_id]
        found: list[Event] = []
        for block in range(traits.block_at(start_ns), traits.block_at(end_ns - 1) + 1):
            found += self._past_block(con_id, block)
        return found[bisect_left(found, start_ns, key=itemgetter(0)) : bisect_left(found, end_ns, key=itemgetter(0))]

    def bars(self, con_id: int, what_to_show: str, start_s: npt.NDArray[np.int64], seconds: int) -> Bars:
        """Return bars of `seconds` that begin at `start_s`, ascending.

        They follow the value of the instrument; their volume is what its rate of events makes likely.
        """
        traits = self._traits[con_id]
        offsets = np.linspace(0.0, seconds, _BAR_SAMPLES)
        path = self._values(traits.instrument, (start_s[:, None] + offsets[None, :]).ravel()).reshape(-1, _BAR_SAMPLES)
        path = _to_grid(path, traits)
        trades = traits.events_per_block * _TRADE_SHARE * seconds * NS_PER_S / (1 << traits.block_bits)
        luck = noise(traits.key, start_s, _VOLUME_OCTAVE)
        count = np.maximum(1, np.rint(trades * np.exp(0.5 * luck))).astype(np.int64)
        lot = traits.instrument.round_lot
        volume = np.rint(count * _TYPICAL_LOTS * np.exp(0.2 * luck)) * lot
        wap = np.round(path.mean(axis=1), traits.decimals + 2)
        open_, high, low, close = path[:, 0], path.max(axis=1), path.min(axis=1), path[:, -1]
        if what_to_show == "TRADES":
            return Bars(start_s, open_, high, low, close, volume, wap, count)
        half_spread = traits.instrument.spread_ticks * traits.instrument.min_tick / 2
        lower, upper = {
            "BID": (-half_spread, -half_spread),
            "ASK": (half_spread, half_spread),
            "BID_ASK": (-half_spread, half_spread),
        }.get(what_to_show, (0.0, 0.0))
        open_, high, low, close = (
            np.round(column, traits.decimals + 1)
            for column in (open_ + lower, high + upper, low + lower, close + upper)
        )
        nothing = np.full(len(start_s), _NO_VOLUME)
        return Bars(start_s, open_, high, low, close, nothing.astype(np.float64), nothing.astype(np.float64), nothing)

    def statistics(self, con_id: int, now_ns: int) -> Statistics:
        """Return the figures of the UTC day up to `now_ns`."""
        now_s = now_ns // NS_PER_S
        midnight = now_s - now_s % DAY_S
        if now_s == midnight:
            midnight -= DAY_S
        today = self.bars(con_id, "TRADES", np.array([midnight], dtype=np.int64), now_s - midnight)
        before = self.bars(con_id, "TRADES", np.array([midnight - DAY_S], dtype=np.int64), DAY_S)
        return Statistics(
            open=float(today.open[0]),
            high=float(today.high[0]),
            low=float(today.low[0]),
            close=float(before.close[0]),
            volume=int(today.volume[0]),
            vwap=float(today.wap[0]),
        )

    def value(self, con_id: int, now_ns: int) -> float:
        """Return what one unit is worth at `now_ns`."""
        return float(self._values(self._traits[con_id].instrument, np.array([now_ns / NS_PER_S]))[0])

    def book(self, quote: QuoteEvent, rows: int) -> tuple[list[Level], list[Level]]:
        """Return `rows` rows of bids and of asks, best first; below the top, a size holds for about a second."""
        traits = self._traits[quote.con_id]
        return (
            _ladder(traits, quote.bid, quote.bid_size, -traits.instrument.min_tick, quote.ts_ns, rows),
            _ladder(traits, quote.ask, quote.ask_size, traits.instrument.min_tick, quote.ts_ns, rows),
        )

    def _events_after(self, traits: _Traits, now_ns: int) -> Iterator[Event]:
        block = traits.block_at(now_ns)
        events = self._make_block(traits.con_id, block)
        yield from events[bisect_right(events, now_ns, key=itemgetter(0)) :]
        while True:
            block += 1
            yield from self._make_block(traits.con_id, block)

    @staticmethod
    def _next(events: Iterator[Event]) -> tuple[int, int, Event]:
        event = next(events)
        return event.ts_ns, event.con_id, event

    def _values(self, instrument: Instrument, at_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not instrument.underlying:
            return instrument.price * np.exp(instrument.volatility * walk(self._traits[instrument.con_id].key, at_s))
        under = self._values(self.universe[instrument.underlying], at_s)
        if not instrument.expires_s:
            return under * _FUTURE_PREMIUM
        contract = instrument.contract
        strike = contract.strike or 0.0
        return np.array(
            [
                option_price(
                    price, strike, (instrument.expires_s - now_s) / YEAR_S, instrument.volatility, contract.right
                )
                for price, now_s in zip(under.tolist(), at_s.tolist(), strict=True)
            ]
        )

    def _make_block(self, con_id: int, block: int) -> list[Event]:
        """Make all events of one block, ascending by time."""
        traits = self._traits[con_id]
        instrument = traits.instrument
        rng = np.random.Generator(np.random.PCG64(mix(traits.key ^ mix(block))))
        length_ns = 1 << traits.block_bits
        start_ns = block * length_ns - traits.phase_ns
        offsets = _arrivals(rng, traits.events_per_block, length_ns)
        count = len(offsets)
        if not count:
            return []
        if instrument.has_quotes and instrument.has_trades:
            is_trade = rng.random(count) < _TRADE_SHARE
        else:
            is_trade = np.full(count, instrument.has_trades)
        is_move = ~is_trade & (rng.random(count) < _PRICE_MOVE_SHARE)

        ends_s = np.array([start_ns, start_ns + length_ns]) / NS_PER_S
        first, last = self._values(instrument, ends_s).tolist()
        bid, ask = _prices(rng, traits, offsets / length_ns, is_move, first, last)
        kind = rng.random(count)
        bid_size = _sizes(rng, instrument, is_move | (~is_trade & (kind < 0.55)))
        ask_size = _sizes(rng, instrument, is_move | (~is_trade & (kind >= 0.45)))

        ts_ns = (start_ns + offsets).tolist()
        quotes = np.flatnonzero(~is_trade)
        columns = (bid, ask, bid_size, ask_size)
        rows = zip((ts_ns[at] for at in quotes), *(column[quotes].tolist() for column in columns), strict=True)
        events: list[Event] = [QuoteEvent(at_ns, con_id, *row) for at_ns, *row in rows]
        events += _trades(rng, traits, ts_ns, np.flatnonzero(is_trade), bid, ask)
        events.sort(key=itemgetter(0))
        return events


def _traits(instrument: Instrument, seed: int, rate: float) -> _Traits:
    wanted = math.log2(max(_EVENTS_PER_BLOCK / max(rate, 1e-9), 1e-9) * NS_PER_S)
    bits = min(max(round(wanted), _SHORTEST_BLOCK), _LONGEST_BLOCK)
    key = mix(mix(seed) ^ instrument.con_id)
    has_venues = instrument.contract.sec_type == "STK"
    return _Traits(
        instrument=instrument,
        key=key,
        block_bits=bits,
        phase_ns=key % (1 << bits),
        events_per_block=rate * (1 << bits) / NS_PER_S,
        decimals=max(0, -math.floor(math.log10(instrument.min_tick) + 1e-9)) + (instrument.min_tick == 0.25),
        exchanges=_TRADING_EXCHANGES if has_venues else (instrument.details.valid_exchanges.split(",")[0],),
    )


def _arrivals(rng: np.random.Generator, expected: float, length_ns: int) -> npt.NDArray[np.int64]:
    """Return sorted offsets of self-exciting arrivals; those behind the block's end are folded into it."""
    clusters = rng.poisson(expected * (1 - _BRANCHING))
    sizes = rng.geometric(1 - _BRANCHING, clusters)
    times = np.repeat(rng.random(clusters) * length_ns, sizes)
    follows = np.ones(len(times), dtype=bool)
    follows[np.cumsum(sizes) - sizes] = False
    times += np.where(follows, rng.exponential(min(_REACTION_NS, length_ns / 8), len(times)), 0.0)
    offsets = times.astype(np.int64) % length_ns
    offsets.sort()
    return offsets


def _prices(
    rng: np.random.Generator,
    traits: _Traits,
    share: npt.NDArray[np.float64],
    is_move: npt.NDArray[np.bool_],
    first: float,
    last: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return bid and ask after each event: a bridge from `first` to `last`, sampled only where the price moves."""
    moves = np.flatnonzero(is_move)
    at = np.concatenate(([0.0], share[moves], [1.0]))
    steps = np.concatenate(([0.0], rng.standard_normal(len(moves) + 1) * np.sqrt(np.diff(at))))
    wander = np.cumsum(steps)
    wander -= at * wander[-1]
    length_years = (1 << traits.block_bits) / NS_PER_S / YEAR_S
    value = first + (last - first) * at + wander * first * traits.instrument.volatility * math.sqrt(length_years)
    tick = traits.instrument.min_tick
    spread = traits.instrument.spread_ticks - 1 + rng.geometric(0.75, len(value))
    bid_ticks = np.maximum(np.floor(value / tick - (spread - 1) / 2), 1)
    which = np.zeros(len(share), dtype=np.int64)
    which[moves] = np.arange(1, len(moves) + 1)
    which = np.maximum.accumulate(which)
    bid = np.round(bid_ticks * tick, traits.decimals)[which]
    ask = np.round((bid_ticks + spread) * tick, traits.decimals)[which]
    return bid, ask


def _sizes(rng: np.random.Generator, instrument: Instrument, changes: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the size on one side after each event, drawn anew where it changes."""
    which = np.cumsum(changes)
    return (rng.geometric(1 / _TYPICAL_LOTS, int(which[-1]) + 1) * instrument.round_lot)[which]


def _trades(
    rng: np.random.Generator,
    traits: _Traits,
    ts_ns: list[int],
    at: npt.NDArray[np.int64],
    bid: npt.NDArray[np.float64],
    ask: npt.NDArray[np.float64],
) -> list[TradeEvent]:
    count, con_id, lot = len(at), traits.con_id, traits.instrument.round_lot
    if not count:
        return []
    turns = rng.random(count) > _SIDE_KEPT
    at_ask = (np.cumsum(turns) + rng.integers(2)) % 2 == 1
    price = np.where(at_ask, ask[at], bid[at])
    if not traits.instrument.has_quotes:
        price = bid[at]
    size = rng.geometric(1 / _TYPICAL_LOTS, count) * lot
    venues = rng.integers(len(traits.exchanges), size=count).tolist()
    exchanges = [traits.exchanges[venue] for venue in venues]
    conditions = [""] * count
    if len(traits.exchanges) > 1:
        odd = rng.random(count) < _ODD_LOT_SHARE
        size = np.where(odd, rng.integers(1, lot, count), size)
        conditions = [_ODD_LOT_CONDITION if is_odd else "" for is_odd in odd.tolist()]
        for number in np.flatnonzero(rng.random(count) < _OFF_GRID_SHARE).tolist():
            middle = (bid[at[number]] + ask[at[number]]) / 2
            price[number] = np.round(middle, traits.decimals + 1)
            exchanges[number] = _OFF_EXCHANGE
    return [
        TradeEvent(ts_ns[place], con_id, trade_price, trade_size, exchange, condition, condition != "")
        for place, trade_price, trade_size, exchange, condition in zip(
            at.tolist(), price.tolist(), size.tolist(), exchanges, conditions, strict=True
        )
    ]


def _ladder(traits: _Traits, price: float | None, size: Size | None, step: float, ts_ns: int, rows: int) -> list[Level]:
    if price is None or size is None:
        return []
    levels = [(price, size)]
    for row in range(1, rows):
        below = round(price + row * step, traits.decimals)
        if below <= 0:
            break
        grid_line = round(below / traits.instrument.min_tick)
        luck = mix(traits.key ^ mix(grid_line ^ ((ts_ns + mix(grid_line)) >> _DEPTH_SIZE_BITS)))
        levels.append((below, (1 + luck % _DEEPEST_LOTS) * traits.instrument.round_lot))
    return levels


def _to_grid(values: npt.NDArray[np.float64], traits: _Traits) -> npt.NDArray[np.float64]:
    tick = traits.instrument.min_tick
    gridded: npt.NDArray[np.float64] = np.round(np.maximum(np.rint(values / tick), 1) * tick, traits.decimals)
    return gridded
