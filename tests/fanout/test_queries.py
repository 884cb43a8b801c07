"""Questions for contracts: few at a time, in turn, once each, and not for ever in vain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ibfast.contracts import Contract
from ibfast.fanout import queries as questions
from ibfast.fanout.messages import Code, RefusedError
from ibfast.fanout.queries import MOST_OPEN, MOST_PER_OWNER, MOST_VAIN, VAIN_S, ContractQuestions
from tests.support.fanout_client import BEARER, client_of, serving, token_of
from tests.support.loops import Run, until


class Gateway:
    """Answers when it is let: the numbers up to a thousand are contracts."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.open = self.most = 0
        self.now_s = 0.0
        self.lets = asyncio.Semaphore(0)
        self.questions = ContractQuestions(self.ask, lambda: self.now_s)

    async def ask(self, contract: Contract, data_type: str) -> Contract:
        self.asked.append(contract.con_id)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await self.lets.acquire()
        finally:
            self.open -= 1
        if contract.con_id > 1000:
            raise RefusedError(Code.UNKNOWN_CONTRACT, "200: no such contract")
        return Contract(contract.con_id, "AAPL" if contract.con_id == 1 else "MSFT")

    async def answer(self, owner: str, con_id: int) -> Contract:
        def refusal(contract: Contract) -> str | None:
            return "only AAPL" if owner == "least" and contract.symbol != "AAPL" else None

        return await self.questions.answer(owner, owner, Contract(con_id), "TRADES", refusal)


def test_few_are_open_and_connections_have_turns(run: Run) -> None:
    async def test() -> None:
        gateway = Gateway()
        many = [asyncio.create_task(gateway.answer("greedy", 2 + n)) for n in range(500)]
        await until(lambda: gateway.open == MOST_PER_OWNER)
        others = [asyncio.create_task(gateway.answer(f"other {n}", 600 + n)) for n in range(100)]
        await until(lambda: gateway.open == MOST_OPEN)
        honest = asyncio.create_task(gateway.answer("honest", 1))
        for _ in range(100 + 2 * MOST_OPEN):
            gateway.lets.release()
        assert (await honest).symbol == "AAPL"
        assert gateway.asked.index(1) < 150  # and not behind the five hundred
        for _ in range(1000):
            gateway.lets.release()
        await asyncio.gather(*many, *others)
        assert gateway.most == MOST_OPEN
        assert len(gateway.asked) == len(set(gateway.asked)) == 601
        assert (gateway.questions.open, gateway.questions._queued, gateway.questions._questions) == (0, {}, {})

    run(test())


def test_what_many_ask_at_once_is_asked_once_and_goes_on_without_the_first(run: Run) -> None:
    async def test() -> None:
        gateway = Gateway()
        asking = [asyncio.create_task(gateway.answer(f"{n}", 1)) for n in range(50)]
        await until(lambda: gateway.open)
        asking[0].cancel()
        gateway.lets.release()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [isinstance(answer, Contract) for answer in answers] == [False] + [True] * 49
        assert await gateway.answer("later", 1) == answers[1]
        assert gateway.asked == [1]

    run(test())


def test_who_gives_up_leaves_nothing(run: Run) -> None:
    async def test() -> None:
        gateway = Gateway()
        asking = [asyncio.create_task(gateway.answer("gone", 1 + n)) for n in range(100)]
        await until(lambda: gateway.open == MOST_PER_OWNER)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await until(lambda: not gateway.open)
        assert (gateway.questions.open, gateway.questions._queued, gateway.questions._questions) == (0, {}, {})
        assert len(gateway.questions._vain) == 0

    run(test())


def test_that_there_is_none_is_remembered_for_a_while(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MOST_REFUSALS", 10)

    async def test() -> None:
        gateway = Gateway()
        for _ in range(1000):
            gateway.lets.release()
        for _ in range(3):
            with pytest.raises(RefusedError, match="no such contract"):
                await gateway.answer("a", 2000)
        assert gateway.asked == [2000]
        gateway.now_s = VAIN_S
        with pytest.raises(RefusedError):
            await gateway.answer("a", 2000)
        assert gateway.asked == [2000, 2000]
        for con_id in range(3000, 3100):
            with pytest.raises(RefusedError):
                await gateway.answer("a", con_id)
        assert len(gateway.questions._refusals) <= 11

    run(test())


@pytest.mark.parametrize(("owner", "first"), [("any", 2000), ("least", 2)])
def test_a_holder_asks_in_vain_so_often_in_an_hour(run: Run, owner: str, first: int) -> None:
    """Whether there is no such contract, or one that the token does not permit."""

    async def test() -> None:
        gateway = Gateway()
        for _ in range(1000):
            gateway.lets.release()
        codes = list[Code]()
        for con_id in range(first, first + MOST_VAIN + 5):
            with pytest.raises(RefusedError) as refused:
                await gateway.answer(owner, con_id)
            codes.append(refused.value.code)
        assert codes[-6:] == [codes[0]] + [Code.TOO_MANY] * 5
        assert len(gateway.asked) == MOST_VAIN
        assert (await gateway.answer("another", 1)).symbol == "AAPL"
        assert (await gateway.answer(owner, 1)).symbol == "AAPL"  # what is known costs nothing
        gateway.now_s = 3600.0
        with pytest.raises(RefusedError) as refused:
            await gateway.answer(owner, first + 500)
        assert refused.value.code is codes[0]

    run(test())


def test_over_sockets_an_unknown_contract_is_asked_for_once(run: Run) -> None:
    async def test() -> None:
        async with serving(tokens=token_of(symbols=("AAPL",))) as (server, desk), client_of(server, **BEARER) as client:
            asked, wanted = list[Any](), desk.wanted

            async def counted(contract: object, data_type: str, **options: Any) -> Any:
                asked.append(contract)
                return await wanted(contract, data_type, **options)

            desk.wanted = counted  # type: ignore[method-assign]
            for _ in range(3):
                answer = await client.ask("subscribe", contract={"con_id": 77}, data_type="TRADES")
                assert answer["code"] == "UNKNOWN_CONTRACT"
            for _ in range(3):
                answer = await client.ask("subscribe", contract={"con_id": 2}, data_type="TRADES")
                assert answer["code"] == "FORBIDDEN"
            assert len(asked) == 2

    run(test())
