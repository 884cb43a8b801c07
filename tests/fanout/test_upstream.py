"""What is wanted of the gateway: asked for once, counted, given up a moment after its last user has left."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.contracts import Contract
from ibfast.errors import NotConnectedError, RequestError
from ibfast.fanout.messages import Code, RefusedError
from ibfast.fanout.upstream import Upstreams
from tests.support.fanout_desk import Desk, contract_of
from tests.support.loops import Run, until

AAPL = Contract(symbol="AAPL", sec_type="STK", exchange="SMART", currency="USD")
AAPL_BY_ID = Contract(con_id=1)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["TRADES", "ALL", "DEPTH"]), st.booleans(), st.booleans()), max_size=25))
def test_a_line_is_there_exactly_while_somebody_has_it(steps: Any) -> None:
    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=0)
        held: list[tuple[str, Any]] = []
        for data_type, by_id, takes in steps:
            if takes or not held:
                taken, taps = await upstreams.acquire(AAPL_BY_ID if by_id else AAPL, data_type)
                assert {tap.data_type for tap in taps} == {upstream.data_type for upstream in taken}
                held.append((data_type, taken))
            else:
                upstreams.release(held.pop(0)[1])
            lines = {type(request).__name__ for request in desk.lines}
            kinds = {data_type for data_type, _ in held}
            depth, level_1 = "DEPTH" in kinds, bool(kinds - {"DEPTH"})
            assert lines == {name for name, has in (("MarketDepth", depth), ("MarketData", level_1)) if has}
            own = {line[0].req_id for line in desk.lines.values()}
            assert set(np.flatnonzero(upstreams.keeps(np.arange(-1, 100))) - 1) == own
        for _, taken in held:
            upstreams.release(taken)
        assert desk.lines == {}
        await upstreams.close()

    asyncio.run(test())


def test_the_last_one_leaves_a_line_that_lingers(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=0.05)
        first, _ = await upstreams.acquire(AAPL, "TRADES")
        second, _ = await upstreams.acquire(AAPL, "TRADES")
        assert first == second
        upstreams.release(first)
        assert first[0].end is None  # somebody has it
        upstreams.release(second)
        assert first[0].end is not None
        again, _ = await upstreams.acquire(AAPL, "TRADES")
        assert again == first
        assert first[0].end is None
        assert len(desk.asked) == 1
        await asyncio.sleep(0.1)
        assert desk.cancelled == []
        upstreams.release(again)
        await until(lambda: desk.cancelled == ["AAPL"])
        assert list(upstreams) == []
        await upstreams.close()

    run(test())


def test_one_line_in_other_words_began_when_it_began(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=0)
        (first,), _ = await upstreams.acquire(AAPL, "TRADES")
        desk.trade("AAPL", 1.0, 2.0)
        (second,), _ = await upstreams.acquire(AAPL_BY_ID, "TRADES")
        assert second is not first
        assert second.since == first.since
        assert second.since.seq == 0
        assert second.generation == first.generation
        upstreams.release([first, second])
        (third,), _ = await upstreams.acquire(AAPL_BY_ID, "TRADES")
        assert third.since.seq == desk.feed.seq > 0
        assert third.since.tenure > first.since.tenure
        assert third.generation > first.generation
        upstreams.release([third])
        (fourth,), _ = await upstreams.acquire(AAPL, "TRADES")  # no row has come meanwhile
        assert (fourth.since.seq, fourth.generation > third.generation) == (third.since.seq, True)
        assert fourth.since.tenure > third.since.tenure
        upstreams.release([fourth])
        await upstreams.close()

    run(test())


def test_who_gives_up_waiting_leaves_the_others_what_they_wait_for(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=0)
        desk.answer.clear()
        waiting = [asyncio.create_task(upstreams.acquire(AAPL, "TRADES")) for _ in range(3)]
        await until(lambda: desk.asked)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        assert waiting[0].cancelled()
        desk.answer.set()
        (one, _), (other, _) = await waiting[1], await waiting[2]
        assert one == other
        assert one[0].shares == 2
        upstreams.release(one)
        upstreams.release(other)
        assert desk.cancelled == ["AAPL"]
        await upstreams.close()

    run(test())


def test_nobody_left_waiting_ends_the_question(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=10)
        desk.answer.clear()
        waiting = asyncio.create_task(upstreams.acquire(AAPL, "TRADES"))
        await until(lambda: desk.asked)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0)
        desk.answer.set()
        await asyncio.sleep(0)
        assert desk.lines == {}
        await upstreams.close()

    run(test())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotConnectedError("no session"), Code.NO_GATEWAY),
        (TimeoutError("60 s"), Code.NO_GATEWAY),
        (RequestError(1, 200, "No security definition"), Code.UNKNOWN_CONTRACT),
        (RequestError(1, 354, "not subscribed"), Code.REFUSED),
        (ValueError("AAPL is ambiguous: 2 contracts match"), Code.AMBIGUOUS_CONTRACT),
        (ValueError("no such thing"), Code.BAD_FIELD),
    ],
)
def test_a_refusal_is_told_to_all_who_wait_and_forgotten(run: Run, error: Exception, code: Code) -> None:
    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=10)
        desk.error = error
        desk.answer.clear()
        waiting = [asyncio.create_task(upstreams.acquire(AAPL, "TRADES")) for _ in range(2)]
        await until(lambda: desk.asked)
        desk.answer.set()
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, RefusedError)
            assert result.code == code
        assert len(desk.asked) == 1
        desk.error = None
        taken, _ = await upstreams.acquire(AAPL, "TRADES")
        assert len(desk.asked) == 2
        upstreams.release(taken)
        await upstreams.close()
        assert desk.lines == {}

    run(test())


def test_what_is_over_is_opened_anew(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=10)
        (first,), _ = await upstreams.acquire(AAPL, "TRADES")
        first.stream.fail(RequestError(1, 354, "not subscribed"))
        assert first.is_over
        assert first.ending == (Code.REFUSED, "354: not subscribed")
        desk.lines.clear()
        (second,), _ = await upstreams.acquire(AAPL, "TRADES")
        assert second is not first
        assert not second.is_over
        upstreams.release([first])  # of a former life: nothing of the new one's
        assert second.shares == 1
        assert list(upstreams) == [second]
        upstreams.release([second])
        await upstreams.close()

    run(test())


def test_what_was_replaced_is_kept_until_its_last_user_has_gone(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=10)
        (first,), (same,) = [(await upstreams.acquire(AAPL, "TRADES"))[0] for _ in range(2)]
        first.stream.fail(RequestError(1, 354, "not subscribed"))
        desk.lines.clear()
        (second,), _ = await upstreams.acquire(AAPL, "TRADES")
        assert first is same
        for upstream in (first, same):
            assert set(upstreams) == {first, second}
            upstreams.release([upstream])
        assert list(upstreams) == [second]
        upstreams.release([second])
        await upstreams.close()

    run(test())


def test_many_ask_at_once_for_what_ends_as_it_begins(run: Run) -> None:
    class Short(Desk):
        async def subscribe(self, contract: object, data_type: str = "QUOTES", **options: Any) -> Any:
            stream = await super().subscribe(contract, data_type)
            stream.fail(RequestError(1, 354, "not subscribed"))
            self.lines.clear()
            return stream

    async def test() -> None:
        desk = Short()
        upstreams = Upstreams(desk.feed, desk, linger_s=10)

        async def ask(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            taken, _ = await upstreams.acquire(AAPL, "TRADES")
            assert all(upstream.is_over for upstream in taken)
            upstreams.release(taken)

        await asyncio.gather(*(ask(n // 2) for n in range(40)))
        assert list(upstreams) == []
        await upstreams.close()

    run(test())


def test_who_asks_while_there_is_no_session_learns_it_soon(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Waiting(Desk):
        async def wanted(self, contract: object, data_type: str, **options: Any) -> Any:
            await asyncio.Event().wait()

    async def test() -> None:
        desk = Waiting()
        with pytest.raises(RefusedError) as refusal:
            await Upstreams(desk.feed, desk, linger_s=0).identify(AAPL, "TRADES")
        assert refusal.value.code == "NO_GATEWAY"

    monkeypatch.setattr("ibfast.fanout.upstream.IDENTIFY_S", 0.01)
    run(test())


def test_a_line_goes_on_though_the_one_who_had_it_leaves_meanwhile(run: Run) -> None:
    """TRADES and QUOTES are one line; the state of the second begins with the line, and not with its own question."""

    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=0)
        (trades,), _ = await upstreams.acquire(AAPL, "TRADES")
        desk.trade("AAPL", 1.0)
        loop = asyncio.get_running_loop()
        asking = loop.create_task(upstreams.acquire(AAPL, "QUOTES"))
        while not any(upstream.data_type == "QUOTES" for upstream in upstreams):
            await asyncio.sleep(0)
        assert not asking.done()
        upstreams.release([trades])
        (quotes,), _ = await asking
        assert desk.cancelled == []
        assert quotes.since == trades.since
        assert quotes.since.seq == 0 < desk.feed.seq
        assert quotes.generation == trades.generation
        upstreams.release([quotes])
        await upstreams.close()

    run(test())


def test_a_request_that_others_of_the_process_have_began_when_it_began(run: Run) -> None:
    """And what came of it while no subscriber had it is missed, though it is one subscription at the gateway."""

    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=0)
        stream = await desk.subscribe(AAPL, "QUOTES")
        desk.trade("AAPL", 1.0)
        (first,), _ = await upstreams.acquire(AAPL, "TRADES")
        upstreams.release([first])
        (second,), _ = await upstreams.acquire(AAPL, "TRADES")
        assert first.since.seq == second.since.seq == 0 < desk.feed.seq
        assert first.since.tenure < second.since.tenure
        assert first.generation == second.generation
        upstreams.release([second])
        stream.subscription.req_ids[stream.subscription.req_id] = -1  # it waits for its turn
        (third,), _ = await upstreams.acquire(AAPL, "TRADES")
        assert third.since.seq == desk.feed.seq
        upstreams.release([third])
        stream.unsubscribe()
        await upstreams.close()

    run(test())


def test_a_part_that_is_refused_gives_back_the_rest(run: Run) -> None:
    class Picky(Desk):
        async def subscribe(self, contract: object, data_type: str = "QUOTES", **options: Any) -> Any:
            if data_type == "TICKS":
                raise RequestError(1, 354, "not subscribed")
            return await super().subscribe(contract, data_type, **options)

    async def test() -> None:
        desk = Picky()
        upstreams = Upstreams(desk.feed, desk, linger_s=0)
        with pytest.raises(RefusedError):
            await upstreams.acquire(AAPL, "ALL")
        assert desk.lines == {}
        await upstreams.close()

    run(test())


def test_an_id_that_nobody_asked_for_takes_no_memory(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=0)
        taken, _ = await upstreams.acquire(AAPL, "TRADES")
        own, largest = desk.subscription("AAPL").req_id, (1 << 31) - 1
        tracemalloc.start()
        try:
            assert upstreams.keeps(np.array([largest, own, -largest], np.int32)).tolist() == [False, True, False]
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()
        upstreams.release(taken)
        await upstreams.close()

    run(test())


def test_a_request_after_a_reconnect_is_kept_too(run: Run) -> None:
    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=0)
        taken, _ = await upstreams.acquire(AAPL, "TRADES")
        subscription = desk.subscription("AAPL")
        before = subscription.req_id
        foreign = desk.feed.next_req_id()
        assert upstreams.keeps(np.array([before, foreign, -1, 0, 5000])).tolist() == [True, False, False, False, False]
        desk.open_request(subscription)
        assert upstreams.keeps(np.array([subscription.req_id, before])).tolist() == [True, True]
        upstreams.release(taken)
        assert not upstreams.keeps(np.array([subscription.req_id, before])).any()
        await upstreams.close()

    run(test())


def test_a_contract_at_an_exchange_is_one_subscription_however_it_is_described(run: Run) -> None:
    """Two requests of one instrument would send every row of it twice."""

    async def test() -> None:
        desk = Desk()
        upstreams = Upstreams(desk.feed, desk, linger_s=0)
        smart = contract_of("AAPL")
        described = [smart, replace(smart, primary_exchange="NASDAQ"), replace(smart, trading_class="NMS")]
        taken = [(await upstreams.acquire(contract, "TRADES"))[0] for contract in described]
        assert taken[0] == taken[1] == taken[2]
        (other,) = (await upstreams.acquire(contract_of("AAPL", "ISLAND"), "TRADES"))[0]
        assert other != taken[0][0]
        assert other.stream.instrument != taken[0][0].stream.instrument
        assert desk.asked == [("AAPL", "TRADES")] * 2
        await upstreams.close()

    run(test())
