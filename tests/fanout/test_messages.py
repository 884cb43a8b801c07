"""What clients may say, and what becomes of everything else: an error with a code that names what is wrong."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.contracts import ComboLeg, Contract, Stock
from ibfast.fanout import messages
from ibfast.fanout.messages import (
    MOST_NESTED,
    Code,
    Limit,
    ListSubscriptions,
    Ping,
    RefusedError,
    Resume,
    Subscribe,
    Unsubscribe,
    Update,
    encode,
    parse,
)


def said(op: str, **values: Any) -> str:
    return orjson.dumps({"op": op, **values}).decode()


LEG = {"con_id": 1, "ratio": 1, "action": "BUY", "exchange": "SMART"}


def combination(*legs: Any) -> dict[str, Any]:
    return {"symbol": "NG", "sec_type": "BAG", "exchange": "SMART", "currency": "USD", "combo_legs": list(legs)}


def refusal(text: str | bytes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        parse(text)
    return caught.value


def test_a_subscription_has_defaults() -> None:
    assert parse(said("subscribe", symbol="AAPL")) == Subscribe(
        id=None, contract=Stock("AAPL"), data_type="QUOTES", mode="stream", interval_ms=10, fields=(), times="us",
        ordered=False, on_slow="conflate", resume=None,
    )  # fmt: skip
    assert parse(said("subscribe", symbol="AAPL", mode="conflate")).interval_ms == 250


def test_a_subscription_says_all() -> None:
    future = {"symbol": "ES", "sec_type": "FUT", "exchange": "CME", "strike": 1, "con_id": 7, "include_expired": True}
    message = said(
        "subscribe", id="a", contract=future, data_type="TRADES", mode="conflate", interval_ms=0, times="ns",
        fields=["size", "price"], ordered=True, on_slow="close", resume={"epoch": "ab", "position": 2**63 - 2**62},
    )  # fmt: skip
    assert parse(message) == Subscribe(
        id="a", contract=Contract(7, "ES", "FUT", exchange="CME", strike=1.0, include_expired=True),
        data_type="TRADES", mode="conflate", interval_ms=0, times="ns", fields=("price", "size"), ordered=True,
        on_slow="close", resume=Resume("ab", 2**62),
    )  # fmt: skip


def test_a_combo_says_its_legs() -> None:
    other = {"con_id": 2, "ratio": 3, "action": "SELL", "exchange": "CBOE", "exempt_code": -1}
    legs = ComboLeg(1, 1, "BUY", "SMART"), ComboLeg(2, 3, "SELL", "CBOE")
    expected = Contract(symbol="NG", sec_type="BAG", exchange="SMART", currency="USD", combo_legs=legs)
    assert parse(said("subscribe", contract=combination(LEG, other))).contract == expected


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        (said("update", subscription=3, interval_ms=1000), Update(id=None, subscription=3, interval_ms=1000)),
        (said("unsubscribe", subscription=3, id=1.5), Unsubscribe(id=1.5, subscription=3)),
        (said("limit", max_bytes_per_s=0, id=2), Limit(id=2, max_bytes_per_s=0)),
        (said("list"), ListSubscriptions(id=None)),
        (said("ping", data=[{"x": None}]), Ping(id=None, data=[{"x": None}])),
        (said("ping", data="x" * 1022), Ping(id=None, data="x" * 1022)),
    ],
)
def test_the_other_requests(text: str, request_: Any) -> None:
    assert parse(text) == request_


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "7", '"subscribe"', "{}", '{"op": 1}', '{"op": "data"}', '{"op": ["list"]}', b"\x00",
     b'{"op": "list"}', '{"op": "list"', '{"op": NaN}', '{"a": "\\ud800"}', "[" * 100_000],
)  # fmt: skip
def test_what_is_no_message(text: str | bytes) -> None:
    assert refusal(text).code == Code.BAD_MESSAGE


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (said("subscribe"), "symbol"),
        (said("subscribe", symbol="A", contract={"symbol": "A"}), "symbol, contract"),
        (said("subscribe", symbol=""), "symbol"),
        (said("subscribe", symbol=7), "symbol"),
        (said("subscribe", symbol="A" * 300), "symbol"),
        (said("subscribe", symbol="A\0B"), "symbol"),
        (said("subscribe", contract=[]), "contract"),
        (said("subscribe", contract={}), "contract"),
        (said("subscribe", contract={"simbol": "A"}), "simbol"),
        (said("subscribe", contract={"symbol": 1}), "contract.symbol"),
        (said("subscribe", contract={"con_id": True}), "contract.con_id"),
        (said("subscribe", contract={"con_id": 2**31}), "contract.con_id"),
        (said("subscribe", contract={"symbol": "A", "strike": "1"}), "contract.strike"),
        (said("subscribe", contract={"symbol": "A", "include_expired": 1}), "contract.include_expired"),
        (said("subscribe", contract={"symbol": "A", "combo_legs": []}), "combo_legs"),
        (said("subscribe", contract=combination(LEG)), "2 to 8"),
        (said("subscribe", contract=combination(*[LEG] * 9)), "2 to 8"),
        (said("subscribe", contract=combination(LEG, 7)), "combo_legs[1]"),
        (said("subscribe", contract=combination(LEG, LEG | {"con_id": True})), "combo_legs[1].con_id"),
        (said("subscribe", contract=combination(LEG, LEG | {"con_id": 0})), "combo_legs[1].con_id"),
        (said("subscribe", contract=combination(LEG, LEG | {"ratio": -1})), "combo_legs[1].ratio"),
        (said("subscribe", contract=combination(LEG, LEG | {"action": "B\0"})), "combo_legs[1].action"),
        (said("subscribe", contract=combination(LEG, LEG | {"side": "BUY"})), "'side'"),
        (said("subscribe", contract=combination(LEG, LEG) | {"sec_type": "STK"}), "BAG"),
        (said("subscribe", contract={"symbol": "A", "sec_type": "BAG"}), "BAG"),
        (said("subscribe", symbol="A", data_type="trades"), "data_type"),
        (said("subscribe", symbol="A", data_type=["TRADES"]), "data_type"),
        (said("subscribe", symbol="A", data_type="GREEKS"), "data_type"),
        (said("subscribe", symbol="A", mode=None), "mode"),
        (said("subscribe", symbol="A", interval_ms=11), "interval_ms"),
        (said("subscribe", symbol="A", interval_ms=True), "interval_ms"),
        (said("subscribe", symbol="A", interval_ms=10.0), "interval_ms"),
        (said("subscribe", symbol="A", fields=[]), "fields"),
        (said("subscribe", symbol="A", fields="bid"), "fields"),
        (said("subscribe", symbol="A", fields=["bid", "price"]), "'price'"),
        (said("subscribe", symbol="A", fields=[["bid"]]), "fields"),
        (said("subscribe", symbol="A", ordered=1), "ordered"),
        (said("subscribe", symbol="A", times="ms"), "times"),
        (said("subscribe", symbol="A", on_slow="wait"), "on_slow"),
        (said("subscribe", symbol="A", resume={"epoch": "a"}), "resume"),
        (said("subscribe", symbol="A", resume={"epoch": 1, "position": 1}), "resume.epoch"),
        (said("subscribe", symbol="A", resume={"epoch": "a", "position": -1}), "position"),
        (said("subscribe", symbol="A", resume={"epoch": "a", "position": 1.0}), "position"),
        (said("subscribe", symbol="A", depth=3), "'depth'"),
        (said("update", subscription=1), "interval_ms"),
        (said("update", interval_ms=10), "subscription"),
        (said("unsubscribe", subscription="1"), "subscription"),
        (said("unsubscribe", subscription=-1), "subscription"),
        (said("limit"), "max_bytes_per_s"),
        (said("limit", max_bytes_per_s=1e3), "max_bytes_per_s"),
        (said("list", all=True), "'all'"),
        (said("ping", data="x" * 1023), "1024 bytes"),
        (said("ping", data=[[[]] * 3] * 200), "1024 bytes"),
    ],
)
def test_what_is_wrong_is_named(message: str, named: str) -> None:
    refused = refusal(message[:-1] + ',"id":"x"}')
    assert (refused.code, refused.request_id) == (Code.BAD_FIELD, "x")
    assert named in refused.message


@pytest.mark.parametrize("request_id", [True, [], {}, "x" * 129])
def test_an_id_is_short_and_simple(request_id: Any) -> None:
    refused = refusal(said("list", id=request_id))
    assert (refused.code, refused.request_id) == (Code.BAD_FIELD, None)


def test_what_could_be_read_but_not_repeated() -> None:
    nested = "[" * 500 + "]" * 500
    assert "nested" in refusal(f'{{"op": "ping", "data": {nested}}}').message


def test_a_message_of_arrays_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = ",".join(["[]"] * (MOST_NESTED - 2))
    assert "at most 1024 bytes" in refusal(f'{{"op": "ping", "data": [{inside}]}}').message
    monkeypatch.setattr(messages.orjson, "loads", lambda text: pytest.fail("it was read"))
    assert refusal(f'{{"op": "ping", "data": [{inside},{{}}]}}').code is Code.BAD_MESSAGE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["op", "id", "symbol", "contract", "resume", "position"]) | st.text(), inner)
    ),
)


@given(JSON)
def test_anything_is_understood_or_refused(value: Any) -> None:
    text = orjson.dumps(value).decode() if is_text(value) else "null"
    for candidate in (text, f'{{"op":"subscribe","symbol":"A","resume":{text}}}', f'{{"op":"ping","data":{text}}}'):
        try:
            parse(candidate)
        except RefusedError as refused:
            assert refused.message  # noqa: PT017
            encode("error", id=refused.request_id, code=refused.code, message=refused.message)


def is_text(value: Any) -> bool:
    """Whether it can be written as JSON: hypothesis makes lone surrogates, too."""
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def test_what_is_not_a_number_is_null() -> None:
    assert encode("x", a=float("nan"), b=0.1, c=2**63) == b'{"op":"x","a":null,"b":0.1,"c":9223372036854775808}'
