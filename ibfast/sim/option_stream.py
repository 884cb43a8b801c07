"""Level 1 of an option: its ticks, and what they imply.

The rule of the file: computations are Black and Scholes on the simulated underlying; what can't be computed is absent.
"""

from __future__ import annotations

from ibfast.records import NS_PER_S
from ibfast.sim.channel import MarketChannel, midpoint
from ibfast.sim.codec import TickOption
from ibfast.sim.events import EventSource, QuoteEvent
from ibfast.sim.greeks import YEAR_S, greeks, implied_volatility
from ibfast.sim.streams import Level1Stream, Send
from ibfast.wire.ids import MarketDataType, TickType

__all__ = ["OptionStream"]

_RETURN_BASED = 0


class OptionStream(Level1Stream):
    """A level-1 stream that sends computations for bid, ask, last trade and model when the quoted prices change."""

    def __init__(
        self,
        send: Send,
        req_id: int,
        channel: MarketChannel,
        source: EventSource,
        market_data_type: int,
        generic_ticks: frozenset[int],
    ) -> None:
        super().__init__(send, req_id, channel, market_data_type, generic_ticks)
        self._source = source
        is_delayed = market_data_type in (MarketDataType.DELAYED, MarketDataType.DELAYED_FROZEN)
        self._computations = (
            (
                TickType.DELAYED_BID_OPTION,
                TickType.DELAYED_ASK_OPTION,
                TickType.DELAYED_LAST_OPTION,
                TickType.DELAYED_MODEL_OPTION,
            )
            if is_delayed
            else (
                TickType.BID_OPTION_COMPUTATION,
                TickType.ASK_OPTION_COMPUTATION,
                TickType.LAST_OPTION_COMPUTATION,
                TickType.MODEL_OPTION,
            )
        )

    def resume(self, now_ns: int) -> None:
        """Send everything that is known now, computations too."""
        super().resume(now_ns)
        self._compute(self.channel.quote, now_ns)

    def on_quote(self, quote: QuoteEvent, before: QuoteEvent) -> None:
        """Send what changed; new prices mean new computations."""
        super().on_quote(quote, before)
        if (quote.bid, quote.ask) != (before.bid, before.ask):
            self._compute(quote, quote.ts_ns)

    def _compute(self, quote: QuoteEvent, now_ns: int) -> None:
        instrument = self.channel.instrument
        contract = instrument.contract
        under = self._source.value(instrument.underlying, now_ns)
        years = (instrument.expires_s - now_ns / NS_PER_S) / YEAR_S
        strike, right = contract.strike or 0.0, contract.right
        prices = (quote.bid, quote.ask, self.channel.last.price, midpoint(quote))
        for tick_type, price in zip(self._computations, prices, strict=True):
            if price is None:
                continue
            volatility = implied_volatility(price, under, strike, years, right) if years > 0 else None
            if volatility is None:
                tick = TickOption(self.req_id, tick_type, _RETURN_BASED, option_price=price, und_price=under)
            else:
                value = greeks(under, strike, years, volatility, right)
                tick = TickOption(
                    self.req_id, tick_type, _RETURN_BASED, volatility, value.delta, price, 0.0, value.gamma, value.vega,
                    value.theta, under,
                )  # fmt: skip
            self._send(tick)
