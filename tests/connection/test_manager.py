"""Questions over a real socket: answers to their askers, errors to their owners, and no question left open.

Every case runs on asyncio and on uvloop. The gateway is a script that reads like a conversation.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ibfast import Config, Feed, IBKRConnectionManager
from ibfast.config import HeartbeatConfig
from ibfast.connection.stream import DataType
from ibfast.contracts import Contract, ContractDetails, Future, Stock
from ibfast.errors import NotConnectedError, RequestError
from ibfast.records import HISTORICAL_BAR, HISTORICAL_TICK_BID_ASK, HISTORICAL_TICK_LAST, HISTORICAL_TICK_MIDPOINT, Kind
from ibfast.sim.clock import Clock
from ibfast.sim.gateway import Gateway
from ibfast.wire.requests import (
    CancelContractDetails,
    CancelHeadTimestamp,
    CancelHistoricalBars,
    CancelHistoricalTicks,
    ContractDetailsRequest,
    CurrentTimeInMillisRequest,
    CurrentTimeRequest,
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
    MarketData,
    MarketDepth,
    MatchingSymbols,
    TickByTick,
)
from ibfast.wire.responses import (
    ContractData,
    ContractDataEnd,
    CurrentTime,
    CurrentTimeInMillis,
    HeadTimestamp,
    HistoricalData,
    HistoricalDataEnd,
    HistoricalTicks,
    SymbolSample,
    SymbolSamples,
)
from tests.support.conversations import AAPL, MSFT, answer_details, bars_of, session, trade
from tests.support.loops import Run
from tests.support.peer import Caller

VERSIONS = (157, 176, 200, 201, 213, 226)
IMPATIENT_S = 0.05


@pytest.mark.parametrize("version", VERSIONS)
def test_qualify(run: Run, version: int) -> None:
    async def gateway(caller: Caller) -> None:
        request = await caller.request(ContractDetailsRequest)
        assert request.contract == Stock("AAPL")
        caller.send(ContractData(request.req_id, ContractDetails(AAPL, long_name="APPLE INC")))
        caller.send(ContractDataEnd(request.req_id))
        await answer_details(caller, MSFT)

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            assert await manager.qualify("AAPL") == AAPL
            assert await manager.qualify(Stock("AAPL")) == AAPL  # asked once
            assert await manager.qualify("MSFT") == MSFT

    run(test())


def test_qualify_takes_contracts_of_other_clients(run: Run) -> None:
    foreign = SimpleNamespace(
        conId=0, symbol="AAPL", secType="STK", lastTradeDateOrContractMonth="", strike=0.0, right="", multiplier="",
        exchange="SMART", primaryExchange="", currency="USD", localSymbol="", tradingClass="", includeExpired=False,
        secIdType="", secId="", comboLegs=None, comboLegsDescrip="", deltaNeutralContract=None,
    )  # fmt: skip

    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)

    async def test() -> None:
        async with session(gateway) as manager:
            assert await manager.qualify(foreign) == AAPL
            with pytest.raises(TypeError, match="not a contract"):
                await manager.qualify(7)

    run(test())


def test_an_ambiguous_contract_is_told_with_its_matches(run: Run) -> None:
    march, june = (
        Contract(con_id=n, symbol="ES", sec_type="FUT", exchange="CME", local_symbol=name, currency="USD")
        for n, name in [(1, "ESH6"), (2, "ESM6")]
    )

    async def gateway(caller: Caller) -> None:
        await answer_details(caller, march, june)
        await answer_details(caller, march, june)

    async def test() -> None:
        async with session(gateway) as manager:
            with pytest.raises(ValueError, match=r"ambiguous, add fields: 2 contracts match: ESH6 CME 1, ESM6 CME 2"):
                await manager.qualify(Future("ES", "", "CME"))
            details = await manager.contract_details(Future("ES", "", "CME"))
            assert [item.contract.local_symbol for item in details] == ["ESH6", "ESM6"]

    run(test())


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unknown_contract_is_an_error(run: Run, version: int) -> None:
    async def gateway(caller: Caller) -> None:
        request = await caller.request(ContractDetailsRequest)
        caller.error(request.req_id, 200, "No security definition has been found for the request")

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            with pytest.raises(RequestError, match="No security definition") as caught:
                await manager.qualify("NOPE")
            assert (caught.value.req_id, caught.value.code) == (1, 200)

    run(test())


@pytest.mark.parametrize("version", [157, 195])
def test_bars_end_with_their_message_before_196(run: Run, version: int) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        request = await caller.request(HistoricalBars)
        assert (request.contract, request.duration, request.bar_size) == (AAPL, "2 D", "1 hour")
        assert (request.what_to_show, request.use_rth, request.end, request.keep_up_to_date) == (
            "BID", False, "20260105-15:00:00", False,
        )  # fmt: skip
        caller.send(HistoricalData(request.req_id, bars_of(1.5, 2.5), "start", "end"))

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            bars = await manager.historical_bars("AAPL", "2 D", "1 hour", "BID", use_rth=False, end="20260105-15:00:00")
            assert bars.dtype == HISTORICAL_BAR
            assert bars["close"].tolist() == [1.5, 2.5]
            assert bars["event_ns"].tolist() == bars_of(1, 2)["event_ns"].tolist()

    run(test())


@pytest.mark.parametrize("version", [196, 201, 208, 226])
@pytest.mark.parametrize("parts", [[[1.5, 2.5], [3.5]], [[]], []])
def test_bars_come_in_parts_up_to_their_end_from_196_on(run: Run, version: int, parts: list[list[float]]) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        request = await caller.request(HistoricalBars)
        caller.send(*(HistoricalData(request.req_id, bars_of(*part)) for part in parts))
        caller.send(HistoricalData(request.req_id + 1, bars_of(99)), HistoricalDataEnd(request.req_id + 1, "", ""))
        caller.send(HistoricalDataEnd(request.req_id, "start", "end"))

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            bars = await manager.historical_bars("AAPL")
            assert bars.dtype == HISTORICAL_BAR
            assert bars["close"].tolist() == [close for part in parts for close in part]

    run(test())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("what_to_show", "dtype"),
    [("TRADES", HISTORICAL_TICK_LAST), ("BID_ASK", HISTORICAL_TICK_BID_ASK), ("MIDPOINT", HISTORICAL_TICK_MIDPOINT)],
)
def test_ticks_come_in_parts_until_done(run: Run, version: int, what_to_show: str, dtype: Any) -> None:
    ticks = np.zeros(3, dtype)
    ticks["event_ns"] = [1_700_000_000_000_000_000 + n * 1_000_000_000 for n in range(3)]
    ticks["bid" if what_to_show == "BID_ASK" else "price"] = [1.5, 2.5, 3.5]

    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        request = await caller.request(HistoricalTicksRequest)
        assert (request.start, request.end, request.number_of_ticks) == ("20260105-15:00:00", "", 3)
        assert (request.what_to_show, request.ignore_size) == (what_to_show, True)
        caller.send(HistoricalTicks(request.req_id, ticks[:2], False))
        caller.send(HistoricalTicks(request.req_id, ticks[2:], True))

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            got = await manager.historical_ticks(
                "AAPL", what_to_show, "20260105-15:00:00", number_of_ticks=3, ignore_size=True
            )
            assert got.dtype == dtype
            assert got.tolist() == ticks.tolist()

    run(test())


@pytest.mark.parametrize("version", VERSIONS)
def test_head_timestamp_and_matching_symbols(run: Run, version: int) -> None:
    apple = Contract(con_id=1, symbol="AAPL", sec_type="STK", primary_exchange="NASDAQ", currency="USD")
    fund = Contract(con_id=2, symbol="AAPU", sec_type="STK", primary_exchange="ARCA", currency="USD")
    samples = (SymbolSample(apple, ("OPT", "WAR")), SymbolSample(fund))

    async def gateway(caller: Caller) -> None:
        search = await caller.request(MatchingSymbols)
        assert search.pattern == "AAP"
        caller.send(SymbolSamples(search.req_id, samples))
        await answer_details(caller, AAPL)
        head = await caller.request(HeadTimestampRequest)
        assert (head.contract, head.what_to_show, head.use_rth) == (AAPL, "TRADES", True)
        caller.send(HeadTimestamp(head.req_id, "345479400"))

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            assert await manager.matching_symbols("AAP") == list(samples)
            assert await manager.head_timestamp("AAPL") == "345479400"

    run(test())


@pytest.mark.parametrize(("version", "in_millis"), [(157, False), (196, False), (197, True), (226, True)])
def test_the_gateways_clock(run: Run, version: int, in_millis: bool) -> None:
    time_ns = 5_123_000_000 if in_millis else 5_000_000_000

    async def gateway(caller: Caller) -> None:
        await caller.request(CurrentTimeInMillisRequest if in_millis else CurrentTimeRequest)
        caller.send(CurrentTimeInMillis(5_123) if in_millis else CurrentTime(5))

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            assert await asyncio.gather(manager.current_time_ns(), manager.current_time_ns()) == [time_ns] * 2

    run(test())


def test_a_gateway_that_answers_once_a_second_leaves_no_question_open(run: Run) -> None:
    """Questions of users and of the heartbeat, close together and at once: each is answered, and none is dropped."""
    dropped: list[float] = []

    async def gateway(caller: Caller) -> None:
        answered_s = -math.inf
        with contextlib.suppress(asyncio.IncompleteReadError):  # the manager has left
            while True:
                await caller.request(CurrentTimeInMillisRequest)
                if time.monotonic() - answered_s < 1.0:
                    dropped.append(time.monotonic())
                    continue
                answered_s = time.monotonic()
                caller.send(CurrentTimeInMillis(len(answers)))

    answers: list[int] = []

    async def test() -> None:
        async with session(gateway, heartbeat=HeartbeatConfig(interval_s=0.2, timeout_s=5.0)) as manager:
            for _ in range(3):
                answers.append(await manager.current_time_ns())
                manager.send(CurrentTimeInMillisRequest())
                answers.extend(await asyncio.gather(manager.current_time_ns(), manager.current_time_ns()))
            assert manager.health()
        assert len(answers) == 9
        assert not dropped

    run(test())


def test_answers_find_their_askers(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        requests = [await caller.request(ContractDetailsRequest) for _ in range(3)]
        first, second, third = (request.req_id for request in requests)
        assert len({first, second, third}) == 3
        caller.send(ContractData(third, ContractDetails(MSFT)), ContractData(first, ContractDetails(AAPL)))
        caller.send(ContractDataEnd(77), ContractDataEnd(third))
        caller.error(second, 200, "none")
        caller.send(ContractDataEnd(first))

    async def test() -> None:
        async with session(gateway) as manager:
            answers = await asyncio.gather(
                manager.qualify("AAPL"), manager.qualify("NOPE"), manager.qualify("MSFT"), return_exceptions=True
            )
            assert (answers[0], answers[2]) == (AAPL, MSFT)
            assert isinstance(answers[1], RequestError)

    run(test())


QUESTIONS: list[tuple[str, type, type | None]] = [
    ("contract_details", ContractDetailsRequest, CancelContractDetails),
    ("historical_bars", HistoricalBars, CancelHistoricalBars),
    ("historical_ticks", HistoricalTicksRequest, CancelHistoricalTicks),
    ("head_timestamp", HeadTimestampRequest, CancelHeadTimestamp),
    ("matching_symbols", MatchingSymbols, None),
    ("current_time_ns", CurrentTimeInMillisRequest, None),
]


@pytest.mark.parametrize("impatience", ["time-out", "cancellation"])
@pytest.mark.parametrize(("question", "request_type", "cancel_type"), QUESTIONS)
def test_a_question_that_is_given_up_is_cancelled_at_the_gateway(
    run: Run, impatience: str, question: str, request_type: type, cancel_type: type | None
) -> None:
    asked = asyncio.Event()

    async def gateway(caller: Caller) -> None:
        if question not in ("contract_details", "matching_symbols", "current_time_ns"):
            await answer_details(caller, AAPL)
        request = await caller.request(request_type)
        asked.set()
        if cancel_type is not None:
            assert (await caller.request(cancel_type)).req_id == request.req_id
        # A late answer disturbs nobody, and the session goes on.
        if question == "contract_details":
            caller.send(ContractData(request.req_id, ContractDetails(AAPL)), ContractDataEnd(request.req_id))
            caller.error(request.req_id, 162, "query cancelled")
        await answer_details(caller, MSFT)

    async def test() -> None:
        timeout_s = IMPATIENT_S if impatience == "time-out" else 30.0
        async with session(gateway) as manager:
            arguments = [] if question == "current_time_ns" else ["AAPL"]
            if arguments and question not in ("contract_details", "matching_symbols"):
                await manager.qualify("AAPL")
            manager.config = Config(port=manager.config.port, request_timeout_s=timeout_s)
            task = asyncio.create_task(getattr(manager, question)(*arguments))
            if impatience == "cancellation":
                await asked.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                with pytest.raises(TimeoutError, match=r"did not answer within 0\.05 s"):
                    await task
            manager.config = Config(port=manager.config.port)
            assert await manager.qualify("MSFT") == MSFT

    run(test())


@pytest.mark.parametrize("end", ["disconnect", "close", "reset", "broken frame"])
def test_open_questions_fail_with_the_session(run: Run, end: str) -> None:
    async def gateway(caller: Caller) -> None:
        for _ in range(2):
            await caller.request(ContractDetailsRequest)
        await caller.request(CurrentTimeInMillisRequest)
        asked.set()
        if end == "close":
            caller.hang_up()
        elif end == "reset":
            caller.reset()
        elif end == "broken frame":
            caller.write(b"\xff" * 8)

    asked = asyncio.Event()

    async def test() -> None:
        async with session(gateway) as manager:
            questions = asyncio.gather(
                manager.qualify("AAPL"), manager.qualify("MSFT"), manager.current_time_ns(), return_exceptions=True
            )
            await asyncio.sleep(0)
            await asked.wait()
            if end == "disconnect":
                await manager.disconnect()
            assert [type(answer) for answer in await questions] == [NotConnectedError] * 3

    run(test())


def test_advisories_and_notices_end_nothing(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        bars = await caller.request(HistoricalBars)
        for code in (2174, 2106, 10167):
            caller.error(bars.req_id, code)
        caller.send(HistoricalData(bars.req_id, bars_of(1.5)), HistoricalDataEnd(bars.req_id, "", ""))
        line = await caller.request(TickByTick)
        for code in (10167, 10090, 10091, 2104, 2119, 2152, 317):
            caller.error(line.req_id, code)
        for code in (1100, 1102, 2103, 2110, 504):
            caller.error(-1, code)
        caller.send(trade(line.req_id, 1.5))

    async def test() -> None:
        async with session(gateway) as manager:
            assert (await manager.historical_bars("AAPL"))["close"].tolist() == [1.5]
            stream = await manager.subscribe("AAPL", "LAST")
            assert (await anext(stream))["price"].tolist() == [1.5]
            assert stream.live
            assert manager.connected

    run(test())


@pytest.mark.parametrize(("data_type", "request_type", "resets"), [("DEPTH", MarketDepth, 1), ("TICKS", MarketData, 0)])
def test_a_reset_empties_a_book_and_nothing_else(run: Run, data_type: str, request_type: Any, resets: int) -> None:
    """Readers of `depth` know a row's instrument: a reset for the wrong request would empty the book beside it."""

    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        line = await caller.request(request_type)
        caller.error(line.req_id, 317)
        await caller.request(CurrentTimeInMillisRequest)
        caller.send(CurrentTimeInMillis(1))

    async def test() -> None:
        async with session(gateway) as manager:
            await manager.subscribe("AAPL", data_type)
            await manager.current_time_ns()
            rows = manager.feed.depth.reader(start="oldest").read()
            assert rows["kind"].tolist() == [Kind.DEPTH_RESET] * resets

    run(test())


# --- with the embedded gateway ---

SPEED = 60.0
BY_TICK = (DataType.LAST, DataType.ALL_LAST, DataType.BID_ASK, DataType.MIDPOINT)


@pytest.mark.parametrize("version", [157, 200, 201, 206, 226])
def test_every_data_type_flows_from_the_embedded_gateway(run: Run, version: int) -> None:
    async def rows_of(manager: IBKRConnectionManager, contract: object, data_type: DataType) -> Any:
        stream = await manager.subscribe(contract, data_type)
        rows = await anext(stream)
        assert set(rows["instrument"]) == {stream.instrument}
        stream.unsubscribe()
        return rows

    async def test() -> None:
        async with Gateway(server_version=version, pacing=False, clock=Clock(SPEED)) as gateway:
            config = Config(port=gateway.port, client_id=9)
            async with IBKRConnectionManager(config, Feed(1 << 14, max_instruments=64)) as manager:
                options = await manager.contract_details(Contract(symbol="AAPL", sec_type="OPT", exchange="SMART"))
                # One tick-by-tick request for an instrument in 15 s: each type has a symbol of its own.
                symbols = dict(zip(BY_TICK, ("AAPL", "MSFT", "SPY", "NVDA"), strict=True)) | {
                    DataType.GREEKS: options[0].contract
                }
                wishes = [(symbols.get(kind, "AAPL"), kind) for kind in DataType]
                results = await asyncio.gather(*(rows_of(manager, contract, kind) for contract, kind in wishes))
                assert all(len(rows) for rows in results)
                assert len(await manager.historical_bars("MSFT", "1 D", "1 hour")) > 0
                assert len(await manager.historical_ticks("MSFT", start="20260105-15:00:00", number_of_ticks=10)) > 0
                assert [sample.contract.symbol for sample in await manager.matching_symbols("MSFT")] == ["MSFT"]
                assert int(await manager.head_timestamp("MSFT")) > 0
                with pytest.raises(RequestError, match="200"):
                    await manager.qualify("NOSUCHTHING")
                assert manager.protocol.decoder is not None
                assert manager.protocol.decoder.quarantined == 0

    run(test())
