"""What a manager does by itself: reconnecting, restoring, telling; on real sockets, with a gateway that misbehaves.

The whole list of faults is gone through by `python -m benchmarks faults`; here stands what it does not look at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibfast import Config, ErrorHandler, IBKRConnectionManager
from ibfast.config import AuthConfig, HeartbeatConfig, PacingConfig, ReconnectionConfig, SessionConfig
from ibfast.connection.supervisor import SETTLED_S
from ibfast.errors import AuthError, ConnectError, NotConnectedError
from ibfast.feed.feed import NO_INSTRUMENT
from ibfast.policy.pacing.rules import MARGIN_S
from ibfast.policy.subscription import SubscriptionState
from ibfast.records import GapCause, Scope
from ibfast.sim.gateway import Gateway
from ibfast.sim.market import Market
from ibfast.sim.proxy import FaultProxy
from ibfast.sim.ticks import TickPrice
from ibfast.sim.universe import Universe
from ibfast.wire.ids import MarketDataType
from ibfast.wire.requests import (
    CancelMarketData,
    CancelTickByTick,
    CurrentTimeInMillisRequest,
    HeadTimestampRequest,
    MarketData,
    MarketDataTypeRequest,
    OpenOrdersRequest,
    TickByTick,
)
from ibfast.wire.responses import CurrentTimeInMillis, ErrorMessage, ManagedAccounts, NextValidId
from tests.support.conversations import AAPL, MSFT, QUICK, answer_details, kept, names, small_feed, stays, trade
from tests.support.loops import Run, until
from tests.support.peer import Caller, Peer
from tests.support.streams import framed

NERVOUS = HeartbeatConfig(interval_s=0.1, timeout_s=0.1)


def test_an_index_is_used_again_when_no_subscription_has_it(run: Run) -> None:
    """AAPL's is freed; MSFT's has data, and NVDA's waits for a line, so theirs are not; IBM gets AAPL's."""
    nvda = replace(AAPL, con_id=4815747, symbol="NVDA", local_symbol="NVDA")
    ibm = replace(AAPL, con_id=8314, symbol="IBM", local_symbol="IBM")

    async def gateway(caller: Caller) -> None:
        await caller.start()
        await answer_details(caller, AAPL)
        caller.send(TickPrice((await caller.request(MarketData)).req_id, 4, 10.5, 2))
        await caller.request(CancelMarketData)
        await answer_details(caller, MSFT)
        msft = (await caller.request(MarketData)).req_id
        await answer_details(caller, nvda)
        await seen.wait()
        caller.send(*(TickPrice(msft, 4, price, 2) for price in range(1, 9)))
        await answer_details(caller, ibm)
        await caller.gone()

    seen = asyncio.Event()

    async def test() -> None:
        config = {"max_instruments": 3, "keep_instrument_s": 0.1, "feed_capacity": 4, "pacing": PacingConfig(lines=1)}
        async with Peer(gateway) as peer, IBKRConnectionManager(Config(port=peer.port, **config)) as manager:
            instruments = manager.feed.instruments
            apple = await manager.subscribe("AAPL", "TRADES")
            assert (await anext(apple))["price"].tolist() == [10.5]
            apple.unsubscribe()
            microsoft = await manager.subscribe("MSFT", "TRADES")
            nvidia = await manager.subscribe("NVDA", "TRADES")
            await until(lambda: nvidia.state is SubscriptionState.WAITING)
            seen.set()
            await until(lambda: instruments.generation(0) == 1)
            assert np.isnan(manager.feed.last["last"][0])
            other = await manager.subscribe("IBM", "TRADES")
            assert list(instruments) == ["IBM", "MSFT", "NVDA"]
            assert [each.instrument for each in (microsoft, nvidia, other)] == [1, 2, 0]
            assert [instruments.generation(index) for index in range(3)] == [2, 0, 0]

    run(test())


def test_a_stream_goes_on_after_a_reconnect_and_tells_its_gap(run: Run) -> None:
    async def first(caller: Caller) -> None:
        await caller.start()
        await answer_details(caller, AAPL)
        caller.send(trade((await caller.request(TickByTick)).req_id, 1.5))
        await seen.wait()
        caller.reset()

    async def second(caller: Caller) -> None:
        await caller.start()
        request = await caller.request(MarketDataTypeRequest)
        assert request.market_data_type == MarketDataType.DELAYED
        await caller.gone()

    seen = asyncio.Event()

    async def test() -> None:
        async with kept(first, second) as (manager, peer):
            stream = await manager.subscribe("AAPL", "LAST")
            assert (await anext(stream))["price"].tolist() == [1.5]
            await until(lambda: stream.state is SubscriptionState.LIVE)
            manager.set_market_data_type(MarketDataType.DELAYED)
            seen.set()
            await until(lambda: "connection_lost" in names(manager))
            noticed_ns = time.time_ns()
            await until(lambda: len(peer.callers) == 2 and manager.connected)
            await until(lambda: stream.state is SubscriptionState.OPENING)
            gaps = stream.take_gaps()
            assert gaps["instrument"].tolist() == [stream.instrument]
            assert gaps["cause"].tolist() == [GapCause.CONNECTION_LOST]
            assert gaps["first_seq"].tolist() == [2]
            everybody = manager.feed.gaps.reader(start="oldest").read()
            of_connection = everybody[everybody["instrument"] == NO_INSTRUMENT]
            assert of_connection["recovered"].tolist() == [0, 1]
            assert set(of_connection["scope"]) == {Scope.CONNECTION}
            # From the last bytes that came, not from when their end was noticed.
            assert (of_connection["first_ns"] >= gaps["first_ns"][0]).all()
            assert (of_connection["first_ns"] <= noticed_ns).all()
            # One tick-by-tick request for an instrument in 15 s: the plan says when the next one may go.
            ((planned, eta_s),) = manager.plan()
            assert planned is stream.subscription
            assert 10 < eta_s < 16
            assert manager.health()
            assert "OPENING" in manager.health().warnings[0]

    run(test())


def test_no_request_spoils_the_health_and_a_stream_only_by_its_silence(run: Run) -> None:
    """Anybody can ask for what never comes, what there is no line for, or what falls silent at once."""

    async def gateway(caller: Caller) -> None:
        await caller.start()
        await answer_details(caller, AAPL)
        asked = await caller.request(MarketData)
        await speaks.wait()
        caller.send(TickPrice(asked.req_id, 4, 10.5, 2))
        await answer_details(caller, MSFT)
        await caller.gone()

    speaks = asyncio.Event()

    async def test() -> None:
        async with kept(gateway, pacing=PacingConfig(lines=1)) as (manager, _):
            apple = await manager.subscribe("AAPL", "TRADES")
            await until(lambda: apple.state is SubscriptionState.OPENING)
            assert [warning.split(", ")[-1] for warning in manager.health().warnings] == ["OPENING>: asked for"]
            assert manager.health()
            apple.subscription.wanted_s -= SETTLED_S
            assert manager.health()
            speaks.set()
            await until(lambda: apple.state is SubscriptionState.LIVE)
            assert not manager.health().warnings
            microsoft = await manager.subscribe("MSFT", "TRADES")
            await until(lambda: microsoft.state is SubscriptionState.WAITING)
            assert len(manager.health().warnings) == 1
            assert manager.health()
            manager.session.state_seen(apple.subscription, SubscriptionState.STALE, 12.0)
            health = manager.health()
            assert not health
            assert health.is_connected
            assert health.reasons == (f"{apple.subscription!r}: silent for 12 s",)
            assert len(health.warnings) == 1
            apple.subscription.wanted_s += SETTLED_S
            assert manager.health()
            assert len(manager.health().warnings) == 2
        assert not manager.health().is_connected

    run(test())


def test_a_mute_gateway_is_found_out_and_left(run: Run) -> None:
    async def mute(caller: Caller) -> None:
        await caller.start()
        await caller.request(CurrentTimeInMillisRequest)
        await caller.gone()

    async def test() -> None:
        async with kept(mute, stays, heartbeat=NERVOUS) as (manager, peer):
            await until(lambda: len(peer.callers) > 1 and manager.connected)
            assert manager.last_error is None
            lost = next(event for event in manager.monitor.events if event.name == "connection_lost")
            assert "does not answer" in str(lost.fields["error"])

    run(test())


def test_it_gives_up_after_so_many_attempts_and_says_why(run: Run) -> None:
    async def leaves(caller: Caller) -> None:
        await caller.start()
        await answer_details(caller, AAPL)
        caller.send(trade((await caller.request(TickByTick)).req_id, 1.5))
        caller.hang_up()

    async def refuses(caller: Caller) -> None:
        caller.reset()

    async def test() -> None:
        reconnection = ReconnectionConfig(delay_s=0.01, max_delay_s=0.02, max_attempts=3)
        async with Peer(leaves, refuses) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=reconnection), small_feed())
            assert await manager.connect()
            stream = await manager.subscribe("AAPL", "LAST")
            assert len(await anext(stream)) == 1
            with pytest.raises(NotConnectedError):
                await anext(stream)
            assert "gave_up" in names(manager)
            assert manager.monitor.state == "GAVE_UP"
            with pytest.raises(NotConnectedError, match="connect"):
                await manager.subscribe("AAPL", "LAST")
            await manager.disconnect()

    run(test())


def test_a_disconnect_during_the_reconnection_leaves_nothing_behind(run: Run) -> None:
    async def leaves(caller: Caller) -> None:
        await caller.start()
        caller.hang_up()

    async def never_answers(caller: Caller) -> None:
        await caller.gone()

    async def test() -> None:
        async with Peer(leaves, never_answers) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=QUICK), small_feed())
            assert await manager.connect()
            await until(lambda: len(peer.callers) == 2)
            await manager.disconnect()
            assert not manager.connected

    run(test())


def test_a_connection_by_hand_after_giving_up_is_kept_again(run: Run) -> None:
    async def leaves(caller: Caller) -> None:
        await caller.start()
        caller.hang_up()

    async def test() -> None:
        reconnection = ReconnectionConfig(delay_s=0.01, max_delay_s=0.02, max_attempts=2)
        async with Peer(leaves, lambda caller: caller.gone(), leaves, stays, abandon=True) as peer:
            config = Config(port=peer.port, reconnection=reconnection, connect_timeout_s=0.2)
            manager = IBKRConnectionManager(config, small_feed())
            assert await manager.connect()
            await until(lambda: manager.monitor.state == "GAVE_UP")
            await asyncio.sleep(0)
            assert await manager.connect()
            await until(lambda: len(peer.callers) == 4 and manager.connected)
            await manager.disconnect()

    run(test())


def test_what_a_failed_attempt_was_told_ends_with_it(run: Run) -> None:
    async def fails(caller: Caller) -> None:
        await caller.handshake()
        caller.error(-1, 1100, "Connectivity between IBKR and Trader Workstation has been lost.")
        caller.hang_up()

    async def test() -> None:
        async with Peer(fails, stays) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=QUICK), small_feed())
            assert not await manager.connect()
            assert await manager.connect()
            assert manager.session.is_link_up
            await manager.disconnect()

    run(test())


def test_a_disconnect_during_a_persistent_connect_ends_it(run: Run) -> None:
    async def test() -> None:
        async with Peer(lambda caller: caller.gone()) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, reconnection=QUICK), small_feed())
            connecting = asyncio.create_task(manager.connect(persist=True))
            await until(lambda: peer.callers)
            await manager.disconnect()
            assert not await connecting
            assert manager.monitor.state == "IDLE"

    run(test())


@pytest.mark.parametrize("young_s", [0.0, 60.0])
def test_after_a_refusal_for_want_of_lines_the_higher_priority_has_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, young_s: float
) -> None:
    monkeypatch.setattr("ibfast.connection.supervisor.YOUNG_S", young_s)

    async def test() -> None:
        async with (
            Gateway(lines=2) as gateway,
            IBKRConnectionManager(Config(port=gateway.port), small_feed()) as manager,
        ):
            low = [await manager.subscribe(symbol) for symbol in ("AAPL", "MSFT")]
            await until(lambda: all(stream.state is SubscriptionState.LIVE for stream in low))
            high = await manager.subscribe("SPY", priority=9)
            await until(lambda: high.state is SubscriptionState.LIVE)
            assert sorted(stream.state for stream in low) == [SubscriptionState.LIVE, SubscriptionState.WAITING]

    run(test())


PAPER = ("DU1234567",)
LOGINS: dict[str, tuple[AuthConfig, tuple[str, ...]]] = {
    "a live account behind a paper configuration": (AuthConfig(account_type="paper"), ("U1234567",)),
    "another account": (AuthConfig(accounts=("DU7654321",)), PAPER),
}


@pytest.mark.parametrize("case", LOGINS)
def test_a_login_that_is_not_the_declared_one_gets_no_request(run: Run, case: str) -> None:
    auth, accounts = LOGINS[case]

    async def gateway(caller: Caller) -> None:
        await caller.handshake()
        caller.send(ManagedAccounts(accounts), NextValidId(1))
        assert await caller.gone() == b""

    async def test() -> None:
        async with Peer(gateway) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, auth=auth), small_feed())
            assert not await manager.connect()
            assert isinstance(manager.last_error, AuthError)
            assert "1234567" not in str(manager.last_error)
            assert len(peer.callers) == 1

    run(test())


@pytest.mark.parametrize("read_only", [True, False])
def test_a_read_only_wish_is_checked_at_the_gateway(run: Run, read_only: bool) -> None:
    async def test() -> None:
        async with Gateway(read_only=read_only) as gateway:
            manager = IBKRConnectionManager(Config(port=gateway.port, auth=AuthConfig(read_only=True)), small_feed())
            assert await manager.connect() is read_only
            assert gateway.received[OpenOrdersRequest] == 1
            if not read_only:
                assert isinstance(manager.last_error, AuthError)
            await manager.disconnect()

    run(test())


def test_a_gateway_that_does_not_say_whether_it_is_read_only_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ibfast.connection.error_actions.READ_ONLY_TIMEOUT_S", 0.05)

    async def test() -> None:
        async with Peer(stays) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, auth=AuthConfig(read_only=True)), small_feed())
            assert not await manager.connect()
            assert isinstance(manager.last_error, ConnectError)
            assert manager.last_error.stage == "auth"

    run(test())


def test_an_answer_about_read_only_that_can_t_be_read_is_named(run: Run) -> None:
    async def gateway(caller: Caller) -> None:
        await caller.start()
        await caller.request(OpenOrdersRequest)
        caller.write(framed(b"53\x001"))
        await caller.gone()

    async def test() -> None:
        async with Peer(gateway, version=176) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port, auth=AuthConfig(read_only=True)), small_feed())
            assert not await manager.connect()
            assert "OPEN_ORDER_END can't be read" in str(manager.last_error)

    run(test())


def test_what_was_wanted_survives_the_process(run: Run, tmp_path: Path) -> None:
    async def first(caller: Caller) -> None:
        await caller.start()
        await answer_details(caller, AAPL)
        request = await caller.request(MarketData)
        assert request.contract == AAPL
        await caller.gone()

    async def again(caller: Caller) -> None:
        await caller.start()
        assert (await caller.request(MarketDataTypeRequest)).market_data_type == MarketDataType.FROZEN
        assert (await caller.request(MarketData)).contract == AAPL
        asked.set()
        await caller.gone()

    asked = asyncio.Event()

    async def test() -> None:
        asked.clear()
        store = tmp_path / asyncio.get_running_loop().__class__.__module__
        async with Peer(first, again) as peer:
            config = Config(port=peer.port, session=SessionConfig(store=store))
            async with IBKRConnectionManager(config, small_feed()) as manager:
                await manager.subscribe("AAPL", "QUOTES", priority=3)
                manager.set_market_data_type(MarketDataType.FROZEN)
            async with IBKRConnectionManager(config, small_feed()) as manager:
                await asked.wait()
                (subscription,) = manager.session.subscriptions.values()
                assert (subscription.priority, subscription.shares) == (3, 0)
                assert subscription.gap is not None
                assert subscription.gap.cause is GapCause.PROCESS_ENDED

    run(test())


def test_a_store_that_can_not_be_used_stops_nothing(run: Run, tmp_path: Path) -> None:
    async def test() -> None:
        async with kept(stays, session=SessionConfig(store=tmp_path / "no" / "such" / "folder")) as (manager, _):
            assert manager.connected
            assert "store_failed" in names(manager)

    run(test())


def test_identical_historical_questions_share_one_request(run: Run) -> None:
    async def test() -> None:
        async with Gateway() as gateway, IBKRConnectionManager(Config(port=gateway.port), small_feed()) as manager:
            await manager.qualify("AAPL")
            one, other = await asyncio.gather(manager.head_timestamp("AAPL"), manager.head_timestamp("AAPL"))
            assert one == other
            assert gateway.received[HeadTimestampRequest] == 1
            patient, impatient = (asyncio.create_task(manager.head_timestamp("MSFT")) for _ in range(2))
            await asyncio.sleep(0)
            impatient.cancel()
            assert await patient
            assert not gateway.violations

    run(test())


def test_callbacks_hear_of_messages_and_hurt_nobody(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        heard: list[int] = []
        errors = ErrorHandler(report=lambda callback, error: heard.append(-1))
        errors.on(lambda message, rule: heard.append(message.code), scope=Scope.FARM)
        errors.on(lambda message, rule: 1 / 0, code=2104)
        async with Peer(stays) as peer:
            manager = IBKRConnectionManager(Config(port=peer.port), small_feed(), errors=errors)
            async with manager:
                await until(lambda: len(heard) == 2)
                assert heard == [2104, -1]

    with caplog.at_level(logging.INFO, "ibfast"):
        run(test())


def test_metrics_are_there(run: Run) -> None:
    async def test() -> None:
        async with Gateway() as gateway, IBKRConnectionManager(Config(port=gateway.port), small_feed()) as manager:
            stream = await manager.subscribe("AAPL", "QUOTES")
            await anext(stream)
            text = manager.monitor.exposition().decode()
            for line in (
                'ibfast_ring_published_total{ring="quotes"}', 'ibfast_limit{rule="lines"} 100.0',
                'ibfast_limit_used{rule="lines"} 1.0', "ibfast_requests_sent_total", "ibfast_decode_read_seconds_count",
                "ibfast_socket_to_reader_seconds_count 1.0", 'ibfast_state{state="CONNECTED"} 1.0',
            ):  # fmt: skip
                assert line in text
            assert "ibfast_metric_failures_total{" not in text

    run(test())


def test_what_a_gateway_without_ib_had_to_keep_counts_from_the_return_of_the_link(run: Run) -> None:
    """The clock is the gateway's own: its answer is no sign of IB, where tick-by-tick requests are counted."""

    async def test() -> None:
        async with Gateway() as gateway, IBKRConnectionManager(Config(port=gateway.port), small_feed()) as manager:
            late: list[Any] = []
            request = TickByTick(99, await manager.qualify("AAPL"), "Last")
            gateway.faults.lose_link()
            manager.send(request)
            await until(lambda: "link_lost" in names(manager))
            await asyncio.sleep(MARGIN_S * 1.2)
            manager.outbox.record = late.extend
            await manager.current_time_ns()
            assert request not in [ticket.request for ticket in late]
            gateway.faults.restore_link()
            await until(lambda: "link_restored" in names(manager))
            assert late[-1].request == request

    run(test())


def test_a_refusal_shows_that_a_request_has_arrived(run: Run) -> None:
    """What may be asked for once in a time then counts from its sending, whenever the next sign comes."""

    async def gateway(caller: Caller) -> None:
        await caller.start()
        await answer_details(caller, AAPL)
        caller.error((await caller.request(TickByTick)).req_id, 354)
        await caller.request(CancelTickByTick)
        await caller.request(CurrentTimeInMillisRequest)
        caller.send(CurrentTimeInMillis(int(time.time() * 1000)))
        await caller.gone()

    async def test() -> None:
        async with Peer(gateway) as peer, IBKRConnectionManager(Config(port=peer.port), small_feed()) as manager:
            stream = await manager.subscribe("AAPL", "LAST")
            await until(lambda: stream.state is SubscriptionState.REFUSED)
            await asyncio.sleep(MARGIN_S * 1.2)
            late: list[Any] = []
            manager.outbox.record = late.extend
            await manager.current_time_ns()
            assert [ticket.request for ticket in late if isinstance(ticket.request, TickByTick)] == []

    run(test())


def test_a_request_that_was_given_up_is_cancelled_and_its_rows_reach_no_stream(run: Run) -> None:
    """The gateway says twice that data was lost, and goes on to serve every request that it was sent."""

    async def gateway(caller: Caller) -> None:
        await caller.start()
        await answer_details(caller, AAPL)
        first = await caller.request(MarketData)
        caller.send(TickPrice(first.req_id, 4, 1.5, 1))
        await live.wait()
        caller.error(-1, 1101)
        assert (await caller.request(CancelMarketData)).req_id == first.req_id
        second = await caller.request(MarketData)
        caller.send(TickPrice(first.req_id, 4, 2.5, 1))
        caller.error(-1, 1101)
        assert (await caller.request(CancelMarketData)).req_id == second.req_id
        third = await caller.request(MarketData)
        caller.send(*(TickPrice(request.req_id, 4, 3.5, 1) for request in (first, second, third)))
        await caller.gone()

    live = asyncio.Event()

    async def test() -> None:
        async with kept(gateway) as (manager, _):
            stream = await manager.subscribe("AAPL", "TRADES")
            assert (await anext(stream))["price"].tolist() == [1.5]
            live.set()
            (row,) = await anext(stream)
            assert (row["price"], row["req_id"]) == (3.5, stream.req_id)
            begun, ended = stream.take_gaps()
            assert (begun["cause"], ended["recovered"]) == (GapCause.LINK_LOST, 1)
            assert ended["seq"] < ended["last_seq"] <= row["seq"]
            assert manager.feed.late == 3

    run(test())


@pytest.mark.parametrize("cause", [GapCause.LINK_LOST, GapCause.FARM_BROKEN])
def test_the_end_of_an_outage_and_the_burst_behind_it_in_one_write(run: Run, cause: GapCause) -> None:
    """The gap covers the hole, and its closing row comes before the first row behind the hole."""
    lost, back = (1100, 1102) if cause is GapCause.LINK_LOST else (2103, 2104)

    async def gateway(caller: Caller) -> None:
        await caller.start()
        await answer_details(caller, AAPL)
        req_id = (await caller.request(MarketData)).req_id
        caller.send(TickPrice(req_id, 4, 1.5, 1))
        await seen[0].wait()
        farm = "Market data farm connection is broken:usfarm"
        caller.send(ErrorMessage(-1, lost, farm), TickPrice(req_id, 4, 2.5, 1))
        await seen[1].wait()
        farm = "Market data farm connection is OK:usfarm"
        caller.send(ErrorMessage(-1, back, farm), *(TickPrice(req_id, 4, price, 1) for price in (3.5, 4.5)))
        await caller.gone()

    seen = [asyncio.Event(), asyncio.Event()]

    async def test() -> None:
        async with kept(gateway) as (manager, _):
            stream = await manager.subscribe("AAPL", "TRADES")
            assert (await anext(stream))["price"].tolist() == [1.5]
            seen[0].set()
            (under_way,) = await anext(stream)
            seen[1].set()
            back = await anext(stream)
            assert back["price"].tolist() == [3.5, 4.5]
            begun, gap = stream.take_gaps()
            assert (begun["cause"], begun["recovered"]) == (cause, 0)
            assert begun["seq"] < under_way["seq"]
            assert (gap["cause"], gap["recovered"]) == (cause, 1)
            assert gap["first_seq"] == begun["first_seq"] <= under_way["seq"]
            assert gap["seq"] < back["seq"][0]
            assert under_way["seq"] < gap["last_seq"] <= back["seq"][0]

    run(test())


def test_a_fault_while_a_read_is_handled_makes_the_connection_anew(run: Run) -> None:
    async def test() -> None:
        async with (
            Gateway() as gateway,
            IBKRConnectionManager(Config(port=gateway.port, reconnection=QUICK), small_feed()) as manager,
        ):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(manager, "take", None)
                with pytest.raises(NotConnectedError, match="internal error"):
                    await manager.current_time_ns()
            await until(lambda: manager.connected)
            assert await manager.current_time_ns() > 0
            assert "connection_lost" in names(manager)

    run(test())


def test_a_gap_without_an_end_is_recorded_at_the_disconnect(run: Run) -> None:
    """The farm does not come back, and no record can end the gap any more."""

    async def gateway(caller: Caller) -> None:
        await caller.start()
        await answer_details(caller, AAPL)
        req_id = (await caller.request(MarketData)).req_id
        caller.send(TickPrice(req_id, 4, 1.5, 1))
        await seen.wait()
        caller.send(ErrorMessage(-1, 2103, "Market data farm connection is broken:usfarm"))
        await caller.gone()

    seen = asyncio.Event()

    async def test() -> None:
        async with kept(gateway) as (manager, _):
            stream = await manager.subscribe("AAPL", "TRADES")
            (before,) = await anext(stream)
            seen.set()
            gaps = manager.feed.gaps.reader(start="oldest")
            await until(lambda: "farm_broken" in names(manager))
            assert len(gaps.read()) == 0
            await manager.disconnect()
            (gap,) = gaps.read()
            assert (gap["cause"], gap["recovered"], gap["last_seq"]) == (GapCause.FARM_BROKEN, 0, 0)
            assert gap["first_seq"] == before["seq"] + 1

    run(test())


# --- a slow link ---


@contextlib.asynccontextmanager
async def through_proxy(heartbeat: HeartbeatConfig) -> AsyncIterator[tuple[IBKRConnectionManager, FaultProxy]]:
    """A manager, and the proxy between it and a gateway whose market is busy."""
    market = Market(Universe.of_symbols(["AAPL"], date(2026, 11, 23)), rate=400)
    async with (
        Gateway(market=market) as gateway,
        FaultProxy(gateway.host, gateway.port) as proxy,
        IBKRConnectionManager(Config(port=proxy.port, heartbeat=heartbeat)) as manager,
    ):
        yield manager, proxy


def late_for(manager: IBKRConnectionManager) -> float:
    (told,) = [event.fields["late_s"] for event in manager.monitor.events if event.name == "link_slow"]
    assert isinstance(told, float)
    return told


def test_a_link_that_brings_less_than_there_is_is_told_as_slow_while_its_streams_live(run: Run) -> None:
    async def test() -> None:
        async with through_proxy(HeartbeatConfig(interval_s=0.3, timeout_s=20.0)) as (manager, proxy):
            stream = await manager.subscribe("AAPL", "LAST")
            await until(lambda: stream.state is SubscriptionState.LIVE and manager.health())
            proxy.trickle(1500)
            await until(lambda: "link_slow" in names(manager))
            assert stream.state is SubscriptionState.LIVE
            assert late_for(manager) >= 2.0
            (reason,) = manager.health().reasons
            assert reason.startswith("the link is slow: what arrives is ")
            await proxy.serve()
            await until(lambda: "link_recovered" in names(manager))
            assert manager.health()
            assert names(manager).count("link_slow") == 1
            assert manager.monitor.counts["connection_lost"] == 0

    run(test())


def test_data_that_comes_late_makes_a_link_slow_without_a_question(run: Run) -> None:
    """No question about the clock is asked meanwhile: trades are four seconds older than they were."""

    async def test() -> None:
        async with through_proxy(HeartbeatConfig(interval_s=600.0)) as (manager, proxy):
            stream = await manager.subscribe("AAPL", "LAST")
            await until(lambda: stream.state is SubscriptionState.LIVE)
            for _ in range(3):  # trades of different seconds show what is usual
                await anext(stream)
                await asyncio.sleep(0.5)
            proxy.delay(4.0)
            await until(lambda: "link_slow" in names(manager))
            assert 3.0 <= late_for(manager) < 10.0
            assert not manager.health()
            await proxy.serve()
            await until(lambda: "link_recovered" in names(manager))
            assert manager.health()

    run(test())
