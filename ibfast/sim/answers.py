"""Answers to questions about contracts, the clock and the account: what one message asks and some messages answer.

The rule of the file: a request in, messages out; nothing is held, and no limits apply but that of the rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ibfast.contracts import Contract
from ibfast.errors import RequestError
from ibfast.records import NS_PER_MS, NS_PER_S
from ibfast.sim.codec import UnknownRequest
from ibfast.sim.nothing import empty_answer
from ibfast.sim.streams import Message
from ibfast.sim.universe import Universe
from ibfast.wire import requests, responses
from ibfast.wire.ids import Outgoing

__all__ = ["Answers"]

_NO_SECURITY, _VALIDATION, _NO_REQUEST = 200, 321, -1
_ORDER_LISTS = (Outgoing.REQ_OPEN_ORDERS, Outgoing.REQ_ALL_OPEN_ORDERS, Outgoing.REQ_AUTO_OPEN_ORDERS)


class Answers:
    """Answers of a gateway that need no subscription.

    Args:
        universe: the contracts.
        accounts: of the login.
        read_only: the API may not even look at orders.
    """

    def __init__(self, universe: Universe, accounts: Sequence[str], *, read_only: bool) -> None:
        self._universe = universe
        self._accounts = tuple(accounts)
        self._read_only = read_only

    def answer(self, request: requests.Request | UnknownRequest, now_ns: int, server_version: int) -> Iterator[Message]:
        """Yield the answer; nothing for what stays unanswered.

        Raises:
            RequestError: an error is the answer.
            DecodeError: the request is malformed.
        """
        match request:
            case requests.ContractDetailsRequest():
                yield from self._contract_details(request)
            case requests.MatchingSymbols():
                yield self._matching_symbols(request)
            case requests.CurrentTimeRequest():
                yield responses.CurrentTime(now_ns // NS_PER_S)
            case requests.CurrentTimeInMillisRequest():
                yield responses.CurrentTimeInMillis(now_ns // NS_PER_MS)
            case requests.IdsRequest():
                yield responses.NextValidId(1)
            case requests.ManagedAccountsRequest():
                yield responses.ManagedAccounts(self._accounts)
            case requests.OpenOrdersRequest():
                self._refuse_orders()
                yield responses.OpenOrderEnd()
            case UnknownRequest():
                yield from self._empty_list(request, server_version)

    def _contract_details(self, request: requests.ContractDetailsRequest) -> Iterator[Message]:
        found = self._universe.find(request.contract)
        if not found:
            raise RequestError(request.req_id, _NO_SECURITY, "No security definition has been found for the request")
        for instrument in found:
            exchange = request.contract.exchange or instrument.contract.exchange
            contract = replace(instrument.contract, exchange=exchange)
            yield responses.ContractData(request.req_id, replace(instrument.details, contract=contract))
        yield responses.ContractDataEnd(request.req_id)

    def _matching_symbols(self, request: requests.MatchingSymbols) -> Message:
        found = self._universe.search(request.pattern)
        samples = tuple(
            responses.SymbolSample(
                Contract(
                    con_id=instrument.con_id,
                    symbol=instrument.contract.symbol,
                    sec_type=instrument.contract.sec_type,
                    primary_exchange=instrument.contract.primary_exchange or instrument.contract.exchange,
                    currency=instrument.contract.currency,
                    description=instrument.details.long_name,
                ),
                ("CFD", "OPT", "WAR") if instrument.contract.sec_type == "STK" else ("OPT",),
            )
            for instrument in found
        )
        return responses.SymbolSamples(request.req_id, samples)

    def _empty_list(self, request: UnknownRequest, server_version: int) -> Iterator[Message]:
        if request.msg_id in _ORDER_LISTS:
            self._refuse_orders()
        answer = empty_answer(request, server_version)
        if answer is not None:
            yield answer

    def _refuse_orders(self) -> None:
        if self._read_only:
            reason = "The API interface is currently in Read-Only mode."
            raise RequestError(_NO_REQUEST, _VALIDATION, f"Error validating request:-'sim' : cause - {reason}")
