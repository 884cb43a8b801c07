"""The table of IB's codes: what is benign ends nothing, what is fatal does, and words are read where they count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.errors import ConfigError
from ibfast.policy.codes import (
    CODES,
    FARM_SERVICES,
    Action,
    CodeRule,
    FarmService,
    Severity,
    farm_name,
    new_port,
    rule_for,
    rules_of,
    says_read_only,
)
from ibfast.records import Scope
from ibfast.wire.responses import ErrorMessage

SERVICE = "Historical Market Data Service error message:"
CAUSE = "Error validating request.-'bQ' : cause - "


def action_of(code: int, text: str = "", req_id: int = 7) -> Action:
    return rule_for(ErrorMessage(req_id, code, text)).action


def ends(action: Action) -> bool:
    return action.ends_request or action.ends_connection


# --- the table as a whole ---


def test_a_rule_stands_under_its_own_code() -> None:
    assert all(code == rule.code and rule.text for code, rule in CODES.items())


def test_codes_that_clients_make_themselves_are_not_a_gateways() -> None:
    assert not CODES.keys() & set(range(501, 590))


@given(
    st.integers(-1, 11_000) | st.sampled_from(sorted(CODES)),
    st.sampled_from((-1, 0, 5)),
    st.text() | st.sampled_from(("pacing violation", "Duplicate ticker id", "different IP address", "Read-Only mode")),
)
def test_benign_ends_nothing_and_fatal_ends_something(code: int, req_id: int, text: str) -> None:
    rule = rule_for(ErrorMessage(req_id, code, text))
    assert rule.code == code
    assert rule in rules_of(code)
    if rule.severity <= Severity.WARNING:
        assert not ends(rule.action)
    if rule.severity is Severity.FATAL:
        assert ends(rule.action)
    if rule.action is Action.END_REQUEST:
        assert rule.severity >= Severity.ERROR


@given(st.integers(2100, 2199), st.sampled_from((-1, 5)))
def test_a_warning_never_ends_a_request(code: int, req_id: int) -> None:
    assert not ends(action_of(code, req_id=req_id))


@given(st.sampled_from(sorted(CODES)))
def test_every_action_that_ends_is_an_error(code: int) -> None:
    for rule in rules_of(code):
        assert not ends(rule.action) or rule.severity >= Severity.ERROR


@pytest.mark.parametrize("severity", [Severity.NOTICE, Severity.ADVISORY, Severity.WARNING])
def test_a_rule_by_which_a_notice_ends_something_can_not_be_made(severity: Severity) -> None:
    with pytest.raises(ConfigError, match=r"severity=.*354.*end_request"):
        CodeRule(354, Scope.SUBSCRIPTION, severity, Action.END_REQUEST, "text")


def test_a_rule_by_which_something_fatal_ends_nothing_can_not_be_made() -> None:
    with pytest.raises(ConfigError, match="action=none of code 1300"):
        CodeRule(1300, Scope.CONNECTION, Severity.FATAL, Action.NONE, "text")


# --- single codes ---

ACTIONS = {
    Action.LINK_LOST: (1100, 2110),
    Action.LINK_RESTORED: (1102,),
    Action.LINK_RESTORED_DATA_LOST: (1101,),
    Action.PORT_CHANGED: (1300,),
    Action.FARM_BROKEN: (2103, 2105, 2157),
    Action.FARM_OK: (2104, 2106, 2158),
    Action.FARM_INACTIVE: (2107, 2108),
    Action.FARM_CONNECTING: (2119,),
    Action.SLOW_DOWN: (100,),
    Action.NO_LINE: (101,),
    Action.DUPLICATE: (102, 385, 386),
    Action.NO_TICK_BY_TICK: (10190,),
    Action.OTHER_CLIENT_ID: (326,),
    Action.SUSPEND_ACCOUNT: (10197,),
    Action.EMPTY_BOOK: (317,),
    Action.RENEW: (316, 10182, 10225),
    Action.ADVISE: (165, 2152, 10090, 10091, 10167),
    Action.END_REQUEST: (
        162, 200, 203, 300, 310, 320, 321, 322, 354, 365, 366, 420, 10089, 10092, 10168, 10186, 10187, 10189,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "action"), [(code, action) for action, codes in ACTIONS.items() for code in codes])
def test_what_a_code_asks_of_the_session(code: int, action: Action) -> None:
    assert action_of(code, "whatever else it says") is action


def test_every_action_has_a_message_that_asks_for_it() -> None:
    asked = {rule.action for code in CODES for rule in rules_of(code)}
    assert asked == set(Action)


@pytest.mark.parametrize("code", [110, 201, 202, 399, 404, 10147, 10148])
def test_an_order_never_ends_the_request_of_the_same_number(code: int) -> None:
    rule = rule_for(ErrorMessage(5, code, "Order Canceled - reason:"))
    assert (rule.action, rule.scope) == (Action.NONE, Scope.ACCOUNT)


def test_farm_notices_are_about_a_farm_of_a_known_service() -> None:
    farms = {code for code, rule in CODES.items() if rule.scope is Scope.FARM}
    assert farms == FARM_SERVICES.keys()
    assert FARM_SERVICES[2103] is FarmService.MARKET_DATA
    assert FARM_SERVICES[2105] is FarmService.HISTORICAL
    assert FARM_SERVICES[2157] is FarmService.SECURITY_DEFINITIONS


# --- codes that depend on words ---


@pytest.mark.parametrize(
    ("code", "text", "action"),
    [
        (162, SERVICE + "Historical data request pacing violation", Action.HISTORICAL_PACING),
        (162, SERVICE + "HMDS query returned no data: AAPL@SMART Trades", Action.END_REQUEST),
        (162, SERVICE + "Trading TWS session is connected from a different IP address", Action.RENEW),
        (420, "Invalid Real-time Query:Historical data request pacing violation", Action.HISTORICAL_PACING),
        (420, "Invalid Real-time Query:No market data permissions for ISLAND STK", Action.END_REQUEST),
        (10189, "Failed to request tick-by-tick data.No market data permissions for NYSE STK", Action.END_REQUEST),
        (
            10189,
            "Failed to request tick-by-tick data. Trading TWS session is connected from a different IP address",
            Action.RENEW,
        ),
        (10190, "Max number of tick-by-tick requests has been reached.", Action.NO_TICK_BY_TICK),
        (10190, "Only one tick-by-tick request for the same instrument within 15 seconds", Action.RENEW),
        (321, CAUSE + "Invalid step: 5 S", Action.END_REQUEST),
        (321, CAUSE + "The API interface is currently in Read-Only mode.", Action.NONE),
        (322, CAUSE + "Duplicate ticker id", Action.DUPLICATE),
        (322, "Max number of tick-by-tick requests has been reached", Action.NO_TICK_BY_TICK),
        (322, CAUSE + "Only 50 simultaneous API historical data requests allowed.", Action.HISTORICAL_PACING),
        (322, CAUSE + "Maximum number of account summary requests exceeded", Action.END_REQUEST),
    ],
)
def test_words_decide(code: int, text: str, action: Action) -> None:
    assert action_of(code, text) is action
    assert action_of(code, text.upper()) is action


def test_only_a_read_only_gateway_says_so() -> None:
    text = CAUSE + "The API interface is currently in Read-Only mode."
    assert says_read_only(ErrorMessage(-1, 321, text))
    assert not says_read_only(ErrorMessage(-1, 321, CAUSE + "Invalid step"))
    assert not says_read_only(ErrorMessage(-1, 200, text))


# --- codes that nobody knows ---


@pytest.mark.parametrize(
    ("code", "req_id", "scope", "severity", "action"),
    [
        (1234, -1, Scope.LINK, Severity.WARNING, Action.NONE),
        (1234, 5, Scope.LINK, Severity.WARNING, Action.NONE),
        (2199, -1, Scope.GATEWAY, Severity.NOTICE, Action.NONE),
        (2199, 5, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE),
        (10999, -1, Scope.GATEWAY, Severity.WARNING, Action.NONE),
        (10999, 0, Scope.SUBSCRIPTION, Severity.ERROR, Action.END_REQUEST),
        (504, 5, Scope.SUBSCRIPTION, Severity.ERROR, Action.END_REQUEST),
    ],
)
def test_ranges_decide_what_is_unknown(
    code: int, req_id: int, scope: Scope, severity: Severity, action: Action
) -> None:
    rule = rule_for(ErrorMessage(req_id, code, "?"))
    assert (rule.code, rule.scope, rule.severity, rule.action) == (code, scope, severity, action)


# --- facts in the words ---


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Market data farm connection is OK:usfarm", "usfarm"),
        ("Market data farm connection is OK:usfarm.nj", "usfarm.nj"),
        ("Market data farm connection is broken: cashfarm ", "cashfarm"),
        ("Market data farm is connecting:eufarm", "eufarm"),
        ("Sec-def data farm connection is OK:secdefil", "secdefil"),
        ("HMDS data farm connection is inactive but should be available upon demand.ushmds", "ushmds"),
        ("HMDS data farm connection is inactive but should be available upon demand.", ""),
        ("Market data farm connection is OK", ""),
        ("Market data farm connection is OK:", ""),
        ("", ""),
    ],
)
def test_the_farm_that_a_notice_names(text: str, name: str) -> None:
    assert farm_name(text) == name


@pytest.mark.parametrize(
    ("text", "port"),
    [
        (
            "TWS socket port has been reset and this connection is being dropped.\n"
            "Please reconnect on the new Port - 7498",
            7498,
        ),
        ("Please reconnect on the new port -4002.", 4002),
        ("TWS socket port has been reset and this connection is being dropped.", None),
        ("Please reconnect on the new Port - <port_num>", None),
        ("Please reconnect on the new Port - 74980", None),
        ("Please reconnect on the new Port - 0", None),
        ("Port - " + "9" * 5000, None),
        ("", None),
    ],
)
def test_the_port_that_a_message_names(text: str, port: int | None) -> None:
    assert new_port(text) == port


@given(st.text())
def test_no_words_are_too_strange(text: str) -> None:
    assert isinstance(farm_name(text), str)
    port = new_port(text)
    assert port is None or 0 < port < 1 << 16
