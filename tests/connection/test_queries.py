"""What becomes of a question whose answer is unreadable, empty or repeated, and of one that can't be asked.

Every case runs on asyncio and on uvloop. No case waits for a time limit: the limits are longer than the watchdog.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ibfast import IBKRConnectionManager
from ibfast.contracts import ComboLeg, Contract, ContractDetails
from ibfast.errors import DecodeError, RequestError
from ibfast.records import HISTORICAL_TICK_LAST
from ibfast.sim.codec import encode
from ibfast.wire.requests import (
    ContractDetailsRequest,
    CurrentTimeInMillisRequest,
    CurrentTimeRequest,
    HeadTimestampRequest,
    HistoricalBars,
    HistoricalTicksRequest,
    MatchingSymbols,
)
from ibfast.wire.responses import (
    ContractData,
    ContractDataEnd,
    HeadTimestamp,
    HistoricalData,
    HistoricalDataEnd,
    HistoricalTicks,
)
from tests.support.conversations import AAPL, answer_details, bars_of, session
from tests.support.loops import Run
from tests.support.peer import Caller
from tests.support.streams import framed

VERSIONS = (157, 176, 195, 200, 201)


def text(version: int, msg_id: int, *fields: object) -> bytes:
    """A text message, whatever stands in it."""
    body = "".join(f"{field}\0" for field in fields).encode()
    return framed(msg_id.to_bytes(4, "big") + body if version >= 201 else f"{msg_id}\0".encode() + body)


def bad_bars(caller: Caller, req_id: int) -> None:
    head = ("start", "end") if caller.version < 196 else ()
    bar = ("1", "2", "0.5", "1.5", "10", "1.2", "3")
    caller.write(text(caller.version, 17, req_id, *head, 2, "1767600000", *bar, "0714 09:30:00", *bar))
    if caller.version >= 196:
        caller.send(HistoricalDataEnd(req_id, "", ""))


def bad_details(caller: Caller, req_id: int) -> None:
    good = encode(ContractData(req_id, ContractDetails(contract=AAPL, min_tick=0.0123)), caller.version)
    caller.write(framed(good.replace(b"0.0123", b"0,0123")))
    caller.send(ContractDataEnd(req_id))


Answer = Callable[[Caller, int], None]
Ask = Callable[[IBKRConnectionManager], Awaitable[object]]
CASES: dict[str, tuple[type, Answer, Ask, Any]] = {
    "bars": (
        HistoricalBars, bad_bars, lambda m: m.historical_bars("AAPL"), ("HISTORICAL_DATA", "date", "0714 09:30:00"),
    ),
    "updating bars": (
        HistoricalBars, bad_bars, lambda m: m.subscribe("AAPL", "UPDATING_BARS"),
        ("HISTORICAL_DATA", "date", "0714 09:30:00"),
    ),
    "ticks": (
        HistoricalTicksRequest,
        lambda caller, req_id: caller.write(
            text(caller.version, 98, req_id, 1, "noon", 0, "1.5", "100", "ARCA", "", 1)
        ),
        lambda m: m.historical_ticks("AAPL"), ("HISTORICAL_TICKS_LAST", "time", "noon"),
    ),
    "head": (
        HeadTimestampRequest, lambda caller, req_id: caller.write(text(caller.version, 88, req_id)),
        lambda m: m.head_timestamp("AAPL"), ("HEAD_TIMESTAMP", "timestamp", ""),
    ),
    "details": (
        ContractDetailsRequest, bad_details, lambda m: m.contract_details("MSFT"),
        ("CONTRACT_DATA", "min_tick", "0,0123"),
    ),
    "symbols": (
        MatchingSymbols, lambda caller, req_id: caller.write(text(caller.version, 79, req_id, "many")),
        lambda m: m.matching_symbols("A"), ("SYMBOL_SAMPLES", "samples", "many"),
    ),
    "error": (
        MatchingSymbols,
        lambda caller, req_id: caller.write(
            text(caller.version, 4, *(() if caller.version >= 194 else (2,)), req_id, "E321", "no", "", "")
        ),
        lambda m: m.matching_symbols("A"), ("ERR_MSG", "code", "E321"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_an_answer_that_can_t_be_read_fails_its_question_and_names_field_and_value(
    run: Run, case: str, version: int
) -> None:
    kind, answer, ask, expected = CASES[case]

    async def gateway(caller: Caller) -> None:
        if kind in (HistoricalBars, HistoricalTicksRequest, HeadTimestampRequest):
            await answer_details(caller, AAPL)
        answer(caller, (await caller.request(kind)).req_id)

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            with pytest.raises(DecodeError) as caught:
                await ask(manager)
            error = caught.value
            assert (error.message, error.field, error.value) == expected
            assert manager.protocol.decoder is not None
            assert manager.protocol.decoder.quarantined == 1
            assert manager.history_breaker.allow(0.0) is not None

    run(test())


def test_another_question_is_answered_all_the_same(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        bad_details(caller, (await caller.request(ContractDetailsRequest)).req_id)
        await answer_details(caller, AAPL)

    async def test() -> None:
        async with session(gateway, version=176) as manager:
            with pytest.raises(DecodeError):
                await manager.qualify("MSFT")
            assert await manager.qualify("AAPL") == AAPL

    run(test())


@pytest.mark.parametrize(("version", "msg_id"), [(176, 49), (200, 109)])
def test_a_clock_that_can_t_be_read_fails_the_question(run: Run, version: int, msg_id: int) -> None:
    async def gateway(caller: Caller) -> None:
        await caller.request(CurrentTimeRequest if version < 197 else CurrentTimeInMillisRequest)
        caller.write(text(version, msg_id, *((1, "noon") if msg_id == 49 else ("noon",))))

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            with pytest.raises(DecodeError, match="noon"):
                await manager.current_time_ns()

    run(test())


def test_an_empty_answer_means_that_no_contract_matches(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        for _ in range(2):
            await answer_details(caller)

    async def test() -> None:
        async with session(gateway) as manager:
            for ask in (manager.qualify, manager.contract_details):
                with pytest.raises(RequestError, match=r"no contract matches.*NOPE") as caught:
                    await ask("NOPE")
                assert caught.value.code == 200

    run(test())


def test_an_answer_that_comes_twice_in_one_read_counts_once(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        bars = await caller.request(HistoricalBars)
        answer = [HistoricalData(bars.req_id, bars_of(1.5, 2.5)), HistoricalDataEnd(bars.req_id, "", "")]
        caller.send(*answer, *answer)
        head = await caller.request(HeadTimestampRequest)
        caller.send(*[HeadTimestamp(head.req_id, "345479400")] * 2)

    async def test() -> None:
        async with session(gateway) as manager:
            assert (await manager.historical_bars("AAPL"))["close"].tolist() == [1.5, 2.5]
            assert await manager.head_timestamp("AAPL") == "345479400"

    run(test())


COMBINATION = Contract(
    symbol="NG", sec_type="BAG", exchange="SMART", currency="USD",
    combo_legs=(ComboLeg(101, 1, "SELL", "NYMEX"), ComboLeg(102, 1, "BUY", "NYMEX")),
)  # fmt: skip


@pytest.mark.parametrize("version", [176, 226])
def test_history_of_a_combination_is_asked_for_as_it_is(run: Run, version: int) -> None:
    async def gateway(caller: Caller) -> None:
        bars = await caller.request(HistoricalBars)
        assert bars.contract == COMBINATION
        caller.send(HistoricalData(bars.req_id, bars_of(-0.05)))
        if version >= 196:
            caller.send(HistoricalDataEnd(bars.req_id, "", ""))
        head = await caller.request(HeadTimestampRequest)
        assert head.contract.sec_type == "BAG"
        caller.send(HeadTimestamp(head.req_id, "345479400"))
        ticks = await caller.request(HistoricalTicksRequest)
        assert ticks.contract.sec_type == "BAG"
        caller.send(HistoricalTicks(ticks.req_id, np.zeros(1, HISTORICAL_TICK_LAST), True))

    async def test() -> None:
        async with session(gateway, version=version) as manager:
            assert (await manager.historical_bars(COMBINATION))["close"].tolist() == [-0.05]
            assert await manager.head_timestamp(COMBINATION) == "345479400"
            assert len(await manager.historical_ticks(COMBINATION)) == 1

    run(test())


Attempt = Callable[[Any], Awaitable[object]]
REFUSED: list[tuple[Attempt, str]] = [
    (lambda m: m.historical_bars("AAPL", what_to_show="SCHEDULE"), "TRADES, MIDPOINT"),
    (lambda m: m.historical_bars("AAPL", bar_size="7 mins"), "5 mins, 10 mins"),
    (lambda m: m.historical_bars("AAPL", duration="1 day"), "S, D, W, M or Y"),
    (lambda m: m.historical_bars("AAPL", use_rth="no"), "True or False"),
    (lambda m: m.historical_ticks("AAPL", "BID"), "TRADES, BID_ASK, MIDPOINT"),
    (lambda m: m.historical_ticks("AAPL", number_of_ticks=1001), "1 to 1000"),
    (lambda m: m.historical_ticks("AAPL", number_of_ticks=0), "1 to 1000"),
    (lambda m: m.head_timestamp("AAPL", "SCHEDULE"), "TRADES, MIDPOINT"),
    (lambda m: m.matching_symbols(None), "give a text"),
    (lambda m: m.subscribe("AAPL", "BARS", what_to_show="BID_ASK"), "TRADES, MIDPOINT, BID, ASK"),
    (lambda m: m.subscribe("AAPL", "BARS", use_rth="no"), "True or False"),
    (lambda m: m.subscribe("AAPL", "UPDATING_BARS", what_to_show="SCHEDULE"), "TRADES, MIDPOINT"),
    (lambda m: m.subscribe("AAPL", "UPDATING_BARS", bar_size="1 secs"), "5 secs"),
    (lambda m: m.subscribe("AAPL", "DEPTH", num_rows=0), "1 to"),
    (lambda m: m.subscribe("AAPL", "DEPTH", num_rows=2.5), "whole number"),
    (lambda m: m.subscribe("AAPL", "LAST", ignore_size=None), "True or False"),
    (lambda m: m.subscribe("AAPL", generic_ticks=233), "give a text"),
    (lambda m: m.subscribe("AAPL", priority=1.5), "whole number"),
]


def test_what_has_no_answer_is_refused_before_anything_is_sent(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        assert await caller.gone() == b""

    async def test() -> None:
        async with session(gateway) as manager:
            for attempt, possible in REFUSED:
                with pytest.raises((TypeError, ValueError)) as caught:
                    await attempt(manager)
                assert possible in str(caught.value)

    run(test())


def test_numpy_s_and_pandas_scalars_are_arguments_like_others(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        await answer_details(caller, AAPL)
        bars = await caller.request(HistoricalBars)
        assert (bars.use_rth, bars.end, bars.duration) == (True, "20260105-15:00:00", "60 S")
        caller.send(HistoricalData(bars.req_id, bars_of(1.5)), HistoricalDataEnd(bars.req_id, "", ""))
        ticks = await caller.request(HistoricalTicksRequest)
        assert (ticks.number_of_ticks, ticks.ignore_size) == (3, True)
        caller.send(HistoricalTicks(ticks.req_id, np.zeros(3, HISTORICAL_TICK_LAST), True))

    async def test() -> None:
        async with session(gateway) as manager:
            end = pd.Timestamp("2026-01-05 10:00", tz="America/New_York")
            duration: Any = np.str_("60 S")
            yes: Any = np.bool_(True)
            number: Any = np.int64(3)
            assert len(await manager.historical_bars("AAPL", duration, use_rth=yes, end=end)) == 1
            assert len(await manager.historical_ticks("AAPL", number_of_ticks=number, ignore_size=yes)) == 3

    run(test())
