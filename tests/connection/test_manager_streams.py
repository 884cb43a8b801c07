"""Subscriptions over a real socket: one line at the gateway for those who share it, and an end that everybody is told.

Every case runs on asyncio and on uvloop. The gateway is a script that reads like a conversation.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ibfast import Config, IBKRConnectionManager
from ibfast.config import ReconnectionConfig
from ibfast.connection.protocol import Arrival
from ibfast.connection.stream import DataType
from ibfast.contracts import ComboLeg, Contract
from ibfast.errors import ConnectError, NotConnectedError, ProtocolError, RequestError
from ibfast.feed.feed import NO_INSTRUMENT
from ibfast.policy.subscription import SubscriptionState
from ibfast.records import GapCause, Kind, Scope
from ibfast.sim.ticks import HistoricalDataUpdate, TickPrice
from ibfast.wire.ids import MarketDataType, TickType
from ibfast.wire.requests import (
    CancelHistoricalBars,
    CancelMarketData,
    CancelMarketDepth,
    CancelRealTimeBars,
    CancelTickByTick,
    CurrentTimeInMillisRequest,
    HistoricalBars,
    MarketData,
    MarketDataTypeRequest,
    MarketDepth,
    RealTimeBars,
    TickByTick,
)
from ibfast.wire.responses import (
    CurrentTimeInMillis,
    ErrorMessage,
    HistoricalData,
    HistoricalDataEnd,
)
from tests.support.conversations import AAPL, MSFT, answer_details, bars_of, session, small_feed, trade
from tests.support.loops import Run, until
from tests.support.peer import Caller, Peer

IMPATIENT_S = 0.05
CALL = replace(AAPL, con_id=7, sec_type="OPT", last_trade_date="20270115", strike=250.0, right="C")


SUBSCRIPTIONS: dict[DataType, tuple[type, type]] = {
    DataType.TICKS: (MarketData, CancelMarketData),
    DataType.TRADES: (MarketData, CancelMarketData),
    DataType.QUOTES: (MarketData, CancelMarketData),
    DataType.GREEKS: (MarketData, CancelMarketData),
    DataType.LAST: (TickByTick, CancelTickByTick),
    DataType.ALL_LAST: (TickByTick, CancelTickByTick),
    DataType.BID_ASK: (TickByTick, CancelTickByTick),
    DataType.MIDPOINT: (TickByTick, CancelTickByTick),
    DataType.DEPTH: (MarketDepth, CancelMarketDepth),
    DataType.BARS: (RealTimeBars, CancelRealTimeBars),
    DataType.UPDATING_BARS: (HistoricalBars, CancelHistoricalBars),
}


@pytest.mark.parametrize("version", [176, 226])
@pytest.mark.parametrize("data_type", DataType)
def test_a_subscription_opens_and_cancels_its_line(run: Run, version: int, data_type: DataType) -> None:
    contract = CALL if data_type is DataType.GREEKS else AAPL
    open_type, cancel_type = SUBSCRIPTIONS[data_type]
    times = 1 if open_type is TickByTick else 2  # IB allows one of these for an instrument in 15 s

    async def gateway(caller: Caller) -> None:
        await answer_details(caller, contract)
        for _ in range(times):
            request = await caller.request(open_type)
            assert request.contract == contract
            req_ids.append(request.req_id)
            if data_type is DataType.UPDATING_BARS:
                caller.send(HistoricalData(request.req_id, bars_of(1.5)))
                if version >= 196:
                    caller.send(HistoricalDataEnd(request.req_id, "", ""))
            assert (await caller.request(cancel_type)).req_id == request.req_id

    req_ids: list[int] = []

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            for _ in range(times):
                stream = await manager.subscribe(CALL if contract is CALL else "AAPL", data_type)
                assert (stream.contract, stream.instrument, stream.live) == (contract, 0, True)
                stream.unsubscribe()
                assert [rows async for rows in stream] == []
            await until(lambda: len(req_ids) == times)
            assert req_ids == sorted(req_ids)
            assert [*stream.subscription.req_ids] == req_ids[-1:]

    run(test())


def test_streams_that_need_the_same_share_a_line(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        level_1 = await caller.request(MarketData)
        by_tick = await caller.request(TickByTick)
        caller.send(TickPrice(level_1.req_id, 1, 10.5, 3), TickPrice(level_1.req_id, 4, 10.75, 2))
        assert (await caller.request(CancelTickByTick)).req_id == by_tick.req_id
        caller.send(TickPrice(level_1.req_id, 1, 11.5, 3))
        assert (await caller.request(CancelMarketData)).req_id == level_1.req_id
        ended.set()

    ended = asyncio.Event()

    async def test() -> None:
        async with session(gateway) as manager:
            quotes = await manager.subscribe("AAPL", "QUOTES")
            again, trades, ticks = [await manager.subscribe("AAPL", name) for name in ("QUOTES", "TRADES", "TICKS")]
            by_tick = await manager.subscribe("AAPL", "LAST")
            assert len({stream.req_id for stream in (quotes, again, trades, ticks)}) == 1
            assert len({stream.instrument for stream in (quotes, trades, by_tick)}) == 1
            assert (await anext(quotes))["bid"].tolist() == (await anext(again))["bid"].tolist() == [10.5]
            assert (await anext(trades))["price"].tolist() == [10.75]
            assert (await anext(ticks))["price"].tolist() == [10.5, 10.75]
            for stream in (quotes, trades, by_tick, ticks):
                stream.unsubscribe()
            assert (await anext(again))["bid"].tolist() == [11.5]
            again.unsubscribe()
            await ended.wait()

    run(test())


def test_two_subscribe_at_once(run: Run) -> None:
    """Both wait for the contract's details; still they share one line."""

    async def gateway(caller: Caller) -> None:
        for _ in range(2):
            await answer_details(caller, AAPL)
        line = await caller.request(TickByTick)
        caller.send(trade(line.req_id, 1.5))
        assert (await caller.request(CancelTickByTick)).req_id == line.req_id

    async def test() -> None:
        async with session(gateway) as manager:
            streams = await asyncio.gather(manager.subscribe("AAPL", "LAST"), manager.subscribe("AAPL", "LAST"))
            assert [(await anext(stream))["price"].tolist() for stream in streams] == [[1.5]] * 2
            for stream in streams:
                stream.unsubscribe()

    run(test())


def test_updating_bars_begin_with_history(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        request = await caller.request(HistoricalBars)
        assert (request.keep_up_to_date, request.end) == (True, "")
        update = HistoricalDataUpdate(request.req_id, 3, "1700000060", 1, 2, 3, 0.5, 1.5, 100)
        caller.send(HistoricalData(request.req_id, bars_of(1.5)), HistoricalDataEnd(request.req_id, "", ""), update)

    async def test() -> None:
        async with session(gateway) as manager:
            stream = await manager.subscribe("AAPL", "UPDATING_BARS")
            assert stream.history is not None
            assert stream.history["close"].tolist() == [1.5]
            (row,) = await anext(stream)
            assert (row["kind"], row["count"], row["event_ns"]) == (Kind.UPDATE_BAR, 3, 1_700_000_060_000_000_000)

    run(test())


def test_updating_bars_asked_for_again_while_their_history_is_awaited(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        first = await caller.request(HistoricalBars)
        caller.error(first.req_id, 10182, "Failed to request live updates (disconnected).")
        assert (await caller.request(CancelHistoricalBars)).req_id == first.req_id
        second = await caller.request(HistoricalBars)
        assert second.req_id != first.req_id
        caller.send(HistoricalData(second.req_id, bars_of(1.5)), HistoricalDataEnd(second.req_id, "", ""))

    async def test() -> None:
        async with session(gateway) as manager:
            stream = await manager.subscribe("AAPL", "UPDATING_BARS")
            assert stream.history is not None
            assert stream.history["close"].tolist() == [1.5]

    run(test())


def test_updating_bars_are_answered_once_for_all_who_wait_and_anew_for_who_comes_later(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        shared = await caller.request(HistoricalBars)
        await both.wait()
        caller.send(HistoricalData(shared.req_id, bars_of(1.5)), HistoricalDataEnd(shared.req_id, "", ""))
        later = await caller.request(HistoricalBars)
        assert (shared.keep_up_to_date, later.keep_up_to_date) == (True, False)
        caller.send(HistoricalData(later.req_id, bars_of(1.5, 2.5)), HistoricalDataEnd(later.req_id, "", ""))

    both = asyncio.Event()

    async def test() -> None:
        async with session(gateway) as manager:
            await manager.qualify("AAPL")
            tasks = [asyncio.create_task(manager.subscribe("AAPL", "UPDATING_BARS")) for _ in range(2)]
            await until(lambda: any(s.shares == 2 for s in manager.session.subscriptions.values()))
            both.set()
            streams = [await task for task in tasks]
            streams.append(await manager.subscribe("AAPL", "UPDATING_BARS"))
            closes = [stream.history["close"].tolist() for stream in streams if stream.history is not None]
            assert closes == [[1.5], [1.5], [1.5, 2.5]]
            assert len({stream.req_id for stream in streams}) == 1

    run(test())


@pytest.mark.parametrize("trouble", ["reconnect", "data lost", "link lost"])
def test_updating_bars_have_their_history_though_there_is_trouble(run: Run, trouble: str) -> None:
    async def first(caller: Caller) -> None:
        await caller.start()
        await answer_details(caller, AAPL)
        if trouble == "link lost":
            caller.error(-1, 1100)
            await declared.wait()
            caller.error(-1, 1102)
        else:
            await caller.request(HistoricalBars)
        if trouble == "reconnect":
            caller.reset()
            return
        if trouble == "data lost":
            caller.error(-1, 1101)
            await caller.request(CancelHistoricalBars)
        await answer(caller)

    async def second(caller: Caller) -> None:
        await caller.start()
        await answer(caller)

    async def answer(caller: Caller) -> None:
        request = await caller.request(HistoricalBars)
        caller.send(HistoricalData(request.req_id, bars_of(2.5)), HistoricalDataEnd(request.req_id, "", ""))
        await caller.gone()

    declared = asyncio.Event()

    async def test() -> None:
        quick = ReconnectionConfig(delay_s=0.01, max_delay_s=0.05)
        async with (
            Peer(first, second, abandon=True) as peer,
            IBKRConnectionManager(Config(port=peer.port, reconnection=quick), small_feed()) as manager,
        ):
            await manager.qualify("AAPL")
            await until(lambda: manager.session.is_link_up == (trouble != "link lost"))
            task = asyncio.create_task(manager.subscribe("AAPL", "UPDATING_BARS"))
            await until(lambda: manager.session.subscriptions)
            declared.set()
            stream = await task
            assert stream.history is not None
            assert stream.history["close"].tolist() == [2.5]

    run(test())


def test_a_stream_that_reads_late_has_the_rows_of_all_its_requests(run: Run) -> None:
    """However often the subscription was asked for meanwhile."""
    times = 12

    async def gateway(caller: Caller) -> None:
        await caller.start()
        if peer.callers[0] is caller:
            await answer_details(caller, AAPL)
        request = await caller.request(MarketData)
        number = peer.callers.index(caller)
        caller.send(TickPrice(request.req_id, 4, 1.0 + number, 1))
        await flowed[number].wait()
        if number < times - 1:
            caller.reset()
        else:
            await caller.gone()

    flowed = [asyncio.Event() for _ in range(times)]

    async def test() -> None:
        nonlocal peer
        quick = ReconnectionConfig(delay_s=0.001, max_delay_s=0.002)
        peer = Peer(gateway, abandon=True)
        async with (
            peer,
            IBKRConnectionManager(Config(port=peer.port, reconnection=quick), small_feed()) as manager,
        ):
            stream = await manager.subscribe("AAPL", "TRADES")
            for number in range(times):
                await until(lambda: manager.feed.trades.published == number + 1)  # noqa: B023
                await until(lambda: stream.state is SubscriptionState.LIVE)
                flowed[number].set()
            assert (await anext(stream))["price"].tolist() == [1.0 + number for number in range(times)]
            gaps = stream.take_gaps()
            assert gaps["recovered"].tolist() == [0, 1] * (times - 1)
            assert stream.lost == 0

    peer: Peer
    run(test())


def test_updating_bars_that_never_come_are_cancelled(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        for _ in range(2):
            request = await caller.request(HistoricalBars)
            assert (await caller.request(CancelHistoricalBars)).req_id == request.req_id
        refused = await caller.request(HistoricalBars)
        caller.error(refused.req_id, 162, "no data")
        assert (await caller.request(CancelHistoricalBars)).req_id == refused.req_id
        await answer_details(caller, MSFT)

    async def test() -> None:
        async with session(gateway) as manager:
            patient = manager.config
            await manager.qualify("AAPL")
            manager.config = Config(port=patient.port, request_timeout_s=IMPATIENT_S)
            with pytest.raises(TimeoutError):
                await manager.subscribe("AAPL", "UPDATING_BARS")
            manager.config = patient
            task = asyncio.create_task(manager.subscribe("AAPL", "UPDATING_BARS"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(RequestError, match="no data"):
                await manager.subscribe("AAPL", "UPDATING_BARS")
            assert await manager.qualify("MSFT") == MSFT

    run(test())


@pytest.mark.parametrize("code", [354, 10189])
def test_a_refusal_ends_the_streams_of_its_line(run: Run, code: int) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        refused = await caller.request(TickByTick)
        await answer_details(caller, MSFT)
        other = await caller.request(TickByTick)
        caller.error(refused.req_id, code, "refused")
        assert (await caller.request(CancelTickByTick)).req_id == refused.req_id
        caller.error(refused.req_id, 300, "Can't find EId with tickerId")
        caller.send(trade(other.req_id, 2.5))
        again = await caller.request(MarketData)
        assert again.req_id > other.req_id
        caller.send(TickPrice(again.req_id, 4, 3.5, 2))

    async def test() -> None:
        async with session(gateway) as manager:
            first, second = [await manager.subscribe("AAPL", "LAST") for _ in range(2)]
            other = await manager.subscribe("MSFT", "LAST")
            for stream in (first, second):
                with pytest.raises(RequestError, match="refused") as caught:
                    await anext(stream)
                assert (caught.value.req_id, caught.value.code) == (first.subscription.newest_req_id, code)
                assert (stream.live, stream.state) == (False, SubscriptionState.REFUSED)
            assert (await anext(other))["price"].tolist() == [2.5]
            first.unsubscribe()
            again = await manager.subscribe("AAPL", "TRADES")
            assert (await anext(again))["price"].tolist() == [3.5]

    run(test())


def test_a_wrong_subscription_sends_nothing(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        assert await caller.gone() == b""

    async def test() -> None:
        async with session(gateway) as manager:
            with pytest.raises(ValueError, match="no data type 'PRICES'"):
                await manager.subscribe("AAPL", "PRICES")
            with pytest.raises(TypeError):
                await manager.subscribe("AAPL", "QUOTES", depth=5)
            with pytest.raises(TypeError, match="not a contract"):
                await manager.subscribe(None, "QUOTES")
            manager._qualified[Contract.of("AAPL")] = AAPL
            with pytest.raises(TypeError, match="priority='high'"):
                await manager.subscribe("AAPL", "QUOTES", priority="high")  # type: ignore[arg-type]

    run(test())


def test_a_combination_is_sent_as_it_is(run: Run) -> None:
    spread = Contract(symbol="IBM,MSFT", sec_type="BAG", exchange="SMART", currency="USD")

    async def gateway(caller: Caller) -> None:
        assert (await caller.request(MarketData)).contract.sec_type == "BAG"

    async def test() -> None:
        async with session(gateway) as manager:
            stream = await manager.subscribe(spread)
            assert manager.feed.instruments[stream.instrument] == "IBM,MSFT"

    run(test())


def test_an_index_and_a_combination_have_prices_that_mean_no_data_elsewhere(run: Run) -> None:
    tick_index = replace(AAPL, con_id=8, symbol="TICK-NYSE", sec_type="IND", exchange="NYSE")
    spread = Contract(symbol="IBM,MSFT", sec_type="BAG", exchange="SMART", currency="USD")

    async def gateway(caller: Caller) -> None:
        for _ in (tick_index, spread, AAPL):
            req_id = (await caller.request(MarketData)).req_id
            caller.send(*(TickPrice(req_id, tick_type, -1.0, 0) for tick_type in (TickType.LAST, TickType.CLOSE)))
            caller.send(TickPrice(req_id, TickType.LAST, 7.0, 1))

    async def test() -> None:
        async with session(gateway) as manager:
            for contract in (tick_index, AAPL):
                manager._qualified[contract] = contract
            shown = {}
            for contract in (tick_index, spread, AAPL):
                stream = await manager.subscribe(contract, "TRADES")
                prices: list[float] = []
                while 7.0 not in prices:
                    prices += (await anext(stream))["price"].tolist()
                shown[contract.sec_type] = prices, manager.feed.last["close"][stream.instrument].item()
            np.testing.assert_equal(shown, {"IND": ([-1.0, 7.0], np.nan), "BAG": ([7.0], -1.0), "STK": ([7.0], np.nan)})

    run(test())


def test_the_kind_of_market_data_is_chosen(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        assert (await caller.request(MarketDataTypeRequest)).market_data_type == MarketDataType.DELAYED
        done.set()

    done = asyncio.Event()

    async def test() -> None:
        async with session(gateway) as manager:
            manager.set_market_data_type(MarketDataType.DELAYED)
            await done.wait()

    run(test())


def test_listeners_hear_everything_and_break_nothing(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        for n in range(3):
            await caller.request(CurrentTimeInMillisRequest)
            caller.send(CurrentTimeInMillis(n))

    async def test() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
        heard: list[Arrival] = []

        def messages() -> list[Any]:
            return [arrival.message for arrival in heard]

        def broken(arrival: Arrival) -> None:
            raise ZeroDivisionError

        async with session(gateway) as manager:
            manager.add_listener(broken)
            manager.add_listener(heard.append)
            await manager.current_time_ns()
            await manager.current_time_ns()
            await until(lambda: CurrentTimeInMillis(1) in messages())
            manager.remove_listener(broken)
            manager.remove_listener(heard.append)
            await manager.current_time_ns()
            assert manager.connected
        assert [message for message in messages() if not isinstance(message, ErrorMessage)] == [
            CurrentTimeInMillis(0), CurrentTimeInMillis(1),
        ]  # fmt: skip
        assert problems
        assert {type(problem) for problem in problems} == {ZeroDivisionError}

    run(test())


# --- the end of a session ---


def outages(manager: IBKRConnectionManager) -> Any:
    """The gaps of the connection as a whole."""
    gaps = manager.feed.gaps.reader(start="oldest").read()
    return gaps[gaps["instrument"] == NO_INSTRUMENT]


async def two_lines(caller: Caller) -> tuple[int, int]:
    await answer_details(caller, AAPL)
    first = (await caller.request(TickByTick)).req_id
    await answer_details(caller, MSFT)
    second = (await caller.request(TickByTick)).req_id
    caller.send(trade(first, 1.5), trade(second, 2.5))
    return first, second


def test_a_disconnect_ends_streams_in_good_order(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        await two_lines(caller)
        assert await caller.gone() == b""  # nothing is cancelled one by one

    async def test() -> None:
        async with session(gateway) as manager:
            streams = [await manager.subscribe(symbol, "LAST") for symbol in ("AAPL", "MSFT")]
            await until(lambda: manager.feed.trades.published == 2)
            waiting = asyncio.create_task(anext(await manager.subscribe("AAPL", "LAST"), None))
            await asyncio.sleep(0)
            await manager.disconnect()
            assert await waiting is None
            assert [[rows["price"].tolist() async for rows in stream] for stream in streams] == [[[1.5]], [[2.5]]]
            assert [(stream.error, stream.live) for stream in streams] == [(None, False)] * 2
            assert manager.feed.gaps.published == 0
            assert manager.last_error is None
            streams[0].unsubscribe()

    run(test())


LOSSES = {"close": NotConnectedError, "reset": NotConnectedError, "broken frame": ProtocolError}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_connection_fails_streams_leaves_a_gap_and_can_be_replaced(run: Run, loss: str) -> None:
    async def loses(caller: Caller) -> None:
        await two_lines(caller)
        if loss == "reset":
            await lost.wait()
            caller.reset()
        elif loss == "broken frame":
            caller.write(b"\0\0\0\0")
        else:
            caller.hang_up()

    async def works(caller: Caller) -> None:
        """The contracts are known already; requests have new ids."""
        req_id = (await caller.request(MarketData)).req_id
        assert req_id > 4
        caller.send(TickPrice(req_id, 4, 3.5, 2))

    lost = asyncio.Event()

    async def test() -> None:
        async with session(loses, works) as manager:
            streams = [await manager.subscribe(symbol, "LAST") for symbol in ("AAPL", "MSFT")]
            await until(lambda: manager.feed.trades.published == 2)
            lost.set()
            for stream, price in zip(streams, [1.5, 2.5], strict=True):
                assert (await anext(stream))["price"].tolist() == [price]
                with pytest.raises(NotConnectedError):
                    await anext(stream)
                assert not stream.live
            assert not manager.connected
            assert type(manager.last_error) is LOSSES[loss]
            with pytest.raises(NotConnectedError):
                await manager.subscribe("AAPL", "LAST")

            (gap,) = outages(manager)
            assert (gap["scope"], gap["cause"], gap["recovered"]) == (Scope.CONNECTION, GapCause.CONNECTION_LOST, 0)
            assert (gap["instrument"], gap["req_id"]) == (NO_INSTRUMENT, -1)
            assert gap["first_seq"] == gap["seq"] == 3
            assert gap["first_ns"] == gap["recv_ns"] > 0

            assert await manager.connect() is True
            assert manager.last_error is None
            again = await manager.subscribe("AAPL", "TRADES")
            assert again.instrument == streams[0].instrument
            rows = await anext(again)
            assert (rows["price"].tolist(), rows["instrument"].tolist()) == ([3.5], [streams[0].instrument])
            assert rows["req_id"][0] != streams[0].req_id
            _, ended = outages(manager)
            assert (ended["scope"], ended["cause"], ended["recovered"]) == (
                Scope.CONNECTION, GapCause.CONNECTION_LOST, 1,
            )  # fmt: skip
            assert (ended["first_seq"], ended["first_ns"]) == (gap["first_seq"], gap["first_ns"])
            assert ended["last_seq"] == ended["seq"] - 1
            assert ended["last_ns"] == ended["recv_ns"] > ended["first_ns"]
            assert list(manager.feed.instruments) == ["AAPL", "MSFT"]
            assert manager.feed.snapshot()["last"].tolist() == [3.5, 2.5]

    run(test())


def test_entering_a_session_that_can_not_be_made(run: Run) -> None:
    async def closes(caller: Caller) -> None:
        await caller.hello()

    async def test() -> None:
        async with Peer(closes) as peer:
            with pytest.raises(ConnectError, match="handshake"):
                async with IBKRConnectionManager(Config(port=peer.port), small_feed()):
                    raise AssertionError

    run(test())


def test_a_subscription_that_can_not_be_written_fails_alone(run: Run) -> None:
    leg: Any = "seven"
    combination = Contract(
        symbol="X", sec_type="BAG", exchange="SMART", currency="USD",
        combo_legs=(ComboLeg(leg, 1, "BUY", "SMART"), ComboLeg(2, 1, "SELL", "SMART")),
    )  # fmt: skip

    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        request = await caller.request(TickByTick)
        await caller.request(MarketData)
        caller.send(trade(request.req_id, 1.5))

    async def test() -> None:
        async with session(gateway) as manager:
            stream = await manager.subscribe("AAPL", "LAST")
            poisoned = await manager.subscribe(combination)
            with pytest.raises(ValueError, match="MarketData can't be written"):
                await anext(poisoned)
            await manager.subscribe("AAPL")
            assert (await anext(stream))["price"].tolist() == [1.5]
            with pytest.raises(ValueError, match="MarketDataType"):
                manager.set_market_data_type("delayed")  # type: ignore[arg-type]

    run(test())
