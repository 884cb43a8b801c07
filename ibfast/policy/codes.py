"""What IB's message codes mean: one table, and a pure lookup in it.

The rule of the file: everything that is decided by a code, or by the words that come with it, is decided here. A rule
names the fault domain, how bad it is and what is to be done; it does nothing itself. Clients' own codes (501 to 589)
never come from a gateway and are not in the table.

Source: https://interactivebrokers.github.io/tws-api/message_codes.html and its successor,
https://ibkrcampus.com/docs/tws-api/doc/error-handling/error-codes; what those leave out was seen on the wire.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from ibfast.errors import ConfigError
from ibfast.records import Scope
from ibfast.wire.responses import ErrorMessage

__all__ = [
    "CODES",
    "FARM_SERVICES",
    "Action",
    "CodeRule",
    "FarmService",
    "Severity",
    "farm_name",
    "new_port",
    "rule_for",
    "rules_of",
    "says_read_only",
]

NO_REQUEST = -1
MAX_PORT = 65535
SYSTEM_CODES = range(1100, 1301)
NOTICE_CODES = range(2100, 2200)


class Severity(IntEnum):
    """How bad a message is; only ERROR and FATAL end anything."""

    NOTICE = 1
    ADVISORY = 2
    WARNING = 3
    ERROR = 4
    FATAL = 5


class Action(StrEnum):
    """What a message asks of the session.

    About one request:
        NONE: nothing; tell it. ADVISE: tell it to the request's owner; the request goes on.
        END_REQUEST: it is refused for good. RENEW: it is dead for a passing reason, ask again.
        DUPLICATE: its id is in use, ask again under another. NO_LINE: no market-data line is left.
        NO_TICK_BY_TICK: no tick-by-tick subscription is left. HISTORICAL_PACING: too many or too fast, ask again later.
        EMPTY_BOOK: the book is sent anew.
    About more than one:
        SLOW_DOWN: requests come too fast; one that is named was not taken.
        FARM_BROKEN, FARM_OK, FARM_INACTIVE (asleep until it is needed), FARM_CONNECTING: of the farm that is named.
        LINK_LOST, LINK_RESTORED, LINK_RESTORED_DATA_LOST: between the gateway and IB; in the last case every
        market-data subscription is gone. SUSPEND_ACCOUNT: another session has the data, until that one ends.
    About the connection, which ends:
        PORT_CHANGED: connect to the new port. OTHER_CLIENT_ID: connect under another id.
    """

    NONE = "none"
    ADVISE = "advise"
    END_REQUEST = "end_request"
    RENEW = "renew"
    DUPLICATE = "duplicate"
    NO_LINE = "no_line"
    NO_TICK_BY_TICK = "no_tick_by_tick"
    HISTORICAL_PACING = "historical_pacing"
    EMPTY_BOOK = "empty_book"
    SLOW_DOWN = "slow_down"
    FARM_BROKEN = "farm_broken"
    FARM_OK = "farm_ok"
    FARM_INACTIVE = "farm_inactive"
    FARM_CONNECTING = "farm_connecting"
    LINK_LOST = "link_lost"
    LINK_RESTORED = "link_restored"
    LINK_RESTORED_DATA_LOST = "link_restored_data_lost"
    SUSPEND_ACCOUNT = "suspend_account"
    PORT_CHANGED = "port_changed"
    OTHER_CLIENT_ID = "other_client_id"

    @property
    def ends_request(self) -> bool:
        """Whether the request that the message names is dead at the gateway."""
        return self in _ENDS_REQUEST

    @property
    def ends_connection(self) -> bool:
        """Whether the gateway closes the connection, or has to be connected to anew."""
        return self in _ENDS_CONNECTION


_ENDS_REQUEST = frozenset(
    {
        Action.END_REQUEST,
        Action.RENEW,
        Action.DUPLICATE,
        Action.NO_LINE,
        Action.NO_TICK_BY_TICK,
        Action.HISTORICAL_PACING,
    }
)
_ENDS_CONNECTION = frozenset({Action.PORT_CHANGED, Action.OTHER_CLIENT_ID})


@dataclass(frozen=True, slots=True)
class CodeRule:
    """What a code means.

    Attributes:
        code: IB's message code.
        scope: the fault domain that it is about.
        severity: how bad it is.
        action: what it asks of the session.
        text: what it means, for people.

    Raises:
        ConfigError: severity and action contradict each other: what ends something is an ERROR at least, and what is
            FATAL ends something.
    """

    code: int
    scope: Scope
    severity: Severity
    action: Action
    text: str

    def __post_init__(self) -> None:
        ends = self.action.ends_request or self.action.ends_connection
        if ends and self.severity < Severity.ERROR:
            raise ConfigError(
                f"severity={self.severity.name} of code {self.code} is not possible with action={self.action}, "
                "which ends something: give ERROR or FATAL, or another action"
            )
        if self.severity is Severity.FATAL and not ends:
            raise ConfigError(
                f"action={self.action} of code {self.code} is not possible with severity=FATAL, which ends something: "
                "give an action that does, or ERROR"
            )


class FarmService(StrEnum):
    """What a data farm serves."""

    MARKET_DATA = "market_data"
    HISTORICAL = "historical"
    SECURITY_DEFINITIONS = "security_definitions"


FARM_SERVICES: dict[int, FarmService] = {
    **dict.fromkeys((2103, 2104, 2108, 2119), FarmService.MARKET_DATA),
    **dict.fromkeys((2105, 2106, 2107), FarmService.HISTORICAL),
    **dict.fromkeys((2157, 2158), FarmService.SECURITY_DEFINITIONS),
}
"""Which kind of farm a farm notice is about."""

_Row = tuple[int, Scope, Severity, Action, str]

_SYSTEM: tuple[_Row, ...] = (
    (1100, Scope.LINK, Severity.ERROR, Action.LINK_LOST, "the gateway has lost IB"),
    (
        1101, Scope.LINK, Severity.WARNING, Action.LINK_RESTORED_DATA_LOST,
        "the gateway is back at IB; market data must be requested again",
    ),
    (1102, Scope.LINK, Severity.NOTICE, Action.LINK_RESTORED, "the gateway is back at IB; market data goes on"),
    (1300, Scope.CONNECTION, Severity.FATAL, Action.PORT_CHANGED, "the gateway listens at another port from now on"),
)  # fmt: skip

_FARMS: tuple[_Row, ...] = (
    (2103, Scope.FARM, Severity.WARNING, Action.FARM_BROKEN, "a market-data farm is broken"),
    (2104, Scope.FARM, Severity.NOTICE, Action.FARM_OK, "a market-data farm is connected"),
    (2105, Scope.FARM, Severity.WARNING, Action.FARM_BROKEN, "a historical-data farm is broken"),
    (2106, Scope.FARM, Severity.NOTICE, Action.FARM_OK, "a historical-data farm is connected"),
    (2107, Scope.FARM, Severity.NOTICE, Action.FARM_INACTIVE, "a historical-data farm sleeps until it is needed"),
    (2108, Scope.FARM, Severity.NOTICE, Action.FARM_INACTIVE, "a market-data farm sleeps until it is needed"),
    (2119, Scope.FARM, Severity.NOTICE, Action.FARM_CONNECTING, "a market-data farm is being connected to"),
    (2157, Scope.FARM, Severity.WARNING, Action.FARM_BROKEN, "a security-definition farm is broken"),
    (2158, Scope.FARM, Severity.NOTICE, Action.FARM_OK, "a security-definition farm is connected"),
)

_WARNINGS: tuple[_Row, ...] = (
    (2100, Scope.ACCOUNT, Severity.NOTICE, Action.NONE, "account data now goes to another subscriber"),
    (2101, Scope.ACCOUNT, Severity.WARNING, Action.NONE, "another client is subscribed to another account"),
    (2102, Scope.ACCOUNT, Severity.NOTICE, Action.NONE, "an order is still being processed"),
    (2109, Scope.ACCOUNT, Severity.NOTICE, Action.NONE, "an attribute of an order is ignored"),
    (2110, Scope.LINK, Severity.ERROR, Action.LINK_LOST, "TWS has lost its server, and reconnects by itself"),
    (2111, Scope.ACCOUNT, Severity.NOTICE, Action.NONE, "the times of an algo order were adjusted"),
    (2130, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "the instrument's prices are to be multiplied"),
    (2137, Scope.ACCOUNT, Severity.NOTICE, Action.NONE, "an order turns a position to the other side"),
    (2152, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "which exchanges a smart book is made of"),
    (2168, Scope.ACCOUNT, Severity.NOTICE, Action.NONE, "an attribute of an order is no longer supported"),
    (2169, Scope.ACCOUNT, Severity.NOTICE, Action.NONE, "an attribute of an order is no longer supported"),
    (2174, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "a time was sent without its zone"),
    (2176, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "fractional sizes are cut to whole ones"),
)

_CONNECTION: tuple[_Row, ...] = (
    (100, Scope.CONNECTION, Severity.ERROR, Action.SLOW_DOWN, "too many requests in a second; the third time ends it"),
    (319, Scope.CONNECTION, Severity.WARNING, Action.NONE, "there is no such log level"),
    (326, Scope.CONNECTION, Severity.FATAL, Action.OTHER_CLIENT_ID, "the client id is in use"),
    (327, Scope.CONNECTION, Severity.WARNING, Action.NONE, "only client 0 can bind orders of TWS"),
    (330, Scope.ACCOUNT, Severity.WARNING, Action.NONE, "only advisors have managed accounts"),
    (331, Scope.ACCOUNT, Severity.WARNING, Action.NONE, "there are no managed accounts"),
    (344, Scope.ACCOUNT, Severity.WARNING, Action.NONE, "the account is no advisor's"),
    (346, Scope.ACCOUNT, Severity.WARNING, Action.NONE, "the account is no institution's"),
    (435, Scope.ACCOUNT, Severity.WARNING, Action.NONE, "an account must be named"),
    (438, Scope.GATEWAY, Severity.WARNING, Action.NONE, "the gateway is locked"),
    (
        10197, Scope.ACCOUNT, Severity.ERROR, Action.SUSPEND_ACCOUNT,
        "another session of this user has the market data; it comes back when that one ends",
    ),
)  # fmt: skip

_REQUESTS: tuple[_Row, ...] = (
    (101, Scope.SUBSCRIPTION, Severity.ERROR, Action.NO_LINE, "no market-data line is left"),
    (102, Scope.SUBSCRIPTION, Severity.ERROR, Action.DUPLICATE, "the request's id is in use"),
    (165, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "the historical-data service says something"),
    (316, Scope.SUBSCRIPTION, Severity.ERROR, Action.RENEW, "the book was halted and must be requested again"),
    (317, Scope.SUBSCRIPTION, Severity.WARNING, Action.EMPTY_BOOK, "the book was reset and is sent anew"),
    (385, Scope.SUBSCRIPTION, Severity.ERROR, Action.DUPLICATE, "the scanner's id is in use"),
    (386, Scope.SUBSCRIPTION, Severity.ERROR, Action.DUPLICATE, "the historical request's id is in use"),
    (492, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "the scanner lacks a subscription to be precise"),
    (10090, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "a part of the data is not subscribed"),
    (10091, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "a part of the data needs an API subscription"),
    (10167, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "not subscribed; delayed data comes instead"),
    (10182, Scope.SUBSCRIPTION, Severity.ERROR, Action.RENEW, "this subscription died with its farm"),
    (309, Scope.SUBSCRIPTION, Severity.ERROR, Action.NO_LINE, "no market-depth subscription is left"),
    (10190, Scope.SUBSCRIPTION, Severity.ERROR, Action.NO_TICK_BY_TICK, "no tick-by-tick subscription is left"),
    (10225, Scope.SUBSCRIPTION, Severity.ERROR, Action.RENEW, "a trade was busted; bars must be requested again"),
)

_REFUSALS: dict[int, str] = {
    123: "there is no such contract id",
    124: "there is no market rule for the contract",
    162: "the historical-data service refused: see the message",
    166: "there is no history of this expired contract",
    200: "there is no such contract, or more than one",
    203: "the instrument is not available to this account",
    300: "no market data was requested under this id",
    301: "the request is invalid",
    302: "the request is invalid",
    310: "no market depth was requested under this id",
    312: "the combination is invalid",
    313: "a leg of the combination is invalid",
    314: "the combination has no legs",
    315: "combinations of stocks go to SMART only",
    320: "the gateway can't read the request",
    321: "the gateway finds the request invalid: see the message",
    322: "the gateway can't process the request: see the message",
    323: "the server failed",
    324: "the request is incomplete",
    336: "a time of the request is invalid",
    337: "a time of the request is invalid",
    343: "a time of the request is invalid",
    354: "not subscribed to this market data",
    357: "this client is too old for the gateway",
    365: "no scanner was requested under this id",
    366: "no history was requested under this id",
    391: "a time of the request is invalid",
    406: "the currency is not possible",
    407: "the symbol has characters that are not possible",
    412: "the contract is not tradable",
    414: "a snapshot takes no generic ticks",
    420: "real-time bars were refused: see the message",
    430: "there are no fundamentals of this instrument",
    431: "what_to_show is missing or wrong",
    10089: "this market data needs an API subscription",
    10092: "this exchange has no market depth of this instrument",
    10168: "not subscribed, and delayed data is not enabled: set the market-data type to delayed",
    10186: "not subscribed, and delayed data is not enabled: set the market-data type to delayed",
    10187: "no permission for these historical ticks",
    10189: "tick-by-tick was refused: see the message",
    10276: "this news feed is not allowed",
    10277: "this news feed is not subscribed",
    10285: "this client's version can't take fractional sizes",
    10295: "schedules have a resolution of days only",
    10299: "another what_to_show is expected: see the message",
    10314: "the end of the period is invalid",
    10339: "a continuous future takes no end of the period",
    10358: "fundamentals are not allowed",
}

# About orders, whose ids are numbers like those of requests: they must never end a request of the same number.
_ORDERS: tuple[range, ...] = (
    range(103, 108), range(109, 112), range(113, 123), range(125, 162), range(163, 165), range(167, 169),
    range(201, 203), range(303, 304), range(311, 312), range(325, 326), range(328, 330), range(332, 336),
    range(338, 343), range(345, 346), range(347, 354), range(355, 357), range(358, 365), range(367, 381),
    range(382, 384), range(387, 391), range(392, 406), range(408, 412), range(413, 414), range(415, 420),
    range(421, 430), range(432, 435), range(436, 438), range(439, 450), range(481, 482), range(10000, 10016),
    range(10018, 10028), range(10147, 10149), range(10233, 10255), range(10268, 10271), range(10286, 10295),
)  # fmt: skip

CODES: dict[int, CodeRule] = {
    **{
        code: CodeRule(code, Scope.ACCOUNT, Severity.WARNING, Action.NONE, "about an order: see the message")
        for codes in _ORDERS
        for code in codes
    },
    **{
        code: CodeRule(code, Scope.SUBSCRIPTION, Severity.ERROR, Action.END_REQUEST, text)
        for code, text in _REFUSALS.items()
    },
    **{row[0]: CodeRule(*row) for row in (*_SYSTEM, *_FARMS, *_WARNINGS, *_CONNECTION, *_REQUESTS)},
}
"""Every known code's rule, where the words of a message say nothing else."""

_PACED = CodeRule(
    0, Scope.SUBSCRIPTION, Severity.ERROR, Action.HISTORICAL_PACING, "historical requests are too fast or too many"
)
_ELSEWHERE = CodeRule(0, Scope.ACCOUNT, Severity.ERROR, Action.RENEW, "another session of this user has the data")
_NO_TICK_BY_TICK = replace(CODES[10190], code=0)
_TOO_SOON = CodeRule(
    0, Scope.SUBSCRIPTION, Severity.ERROR, Action.RENEW, "tick-by-tick of the same instrument was requested just before"
)
_READ_ONLY = CodeRule(0, Scope.GATEWAY, Severity.ADVISORY, Action.NONE, "the gateway is in its Read-Only API mode")
_REFUSED_HISTORY = (("pacing", _PACED), ("different ip address", _ELSEWHERE))

_VARIANTS: dict[int, tuple[tuple[str, CodeRule], ...]] = {
    162: _REFUSED_HISTORY,
    321: (("read-only", _READ_ONLY), ("read only", _READ_ONLY)),
    322: (
        ("duplicate", replace(CODES[102], code=0)),
        ("tick-by-tick", _NO_TICK_BY_TICK),
        ("historical", _PACED),
    ),
    420: _REFUSED_HISTORY,
    10187: _REFUSED_HISTORY,
    10189: _REFUSED_HISTORY,
    10190: (("15 seconds", _TOO_SOON),),
}
"""Codes that mean different things: the first of these phrases that the message contains decides."""


def rule_for(message: ErrorMessage) -> CodeRule:
    """Return what a message means, by its code, its words and whether it names a request.

    What is not in the table is judged by IB's ranges: system codes and warnings never end anything; anything else ends
    the request that it names, since a stream that is taken for alive and is not is worse than one that ends.
    """
    rule = CODES.get(message.code)
    if rule is None:
        return _unknown(message.code, names_request=message.req_id != NO_REQUEST)
    if message.code in _VARIANTS:
        words = message.message.casefold()
        for phrase, variant in _VARIANTS[message.code]:
            if phrase in words:
                return replace(variant, code=message.code)
    return rule


def rules_of(code: int) -> tuple[CodeRule, ...]:
    """Return everything that `rule_for` may say of a code."""
    if code not in CODES:
        return tuple(_unknown(code, names_request=named) for named in (False, True))
    return CODES[code], *(replace(variant, code=code) for _, variant in _VARIANTS.get(code, ()))


def _unknown(code: int, *, names_request: bool) -> CodeRule:
    if code in SYSTEM_CODES:
        return CodeRule(code, Scope.LINK, Severity.WARNING, Action.NONE, "an unknown system message")
    if code in NOTICE_CODES:
        if names_request:
            return CodeRule(code, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "an unknown warning")
        return CodeRule(code, Scope.GATEWAY, Severity.NOTICE, Action.NONE, "an unknown notice")
    if names_request:
        return CodeRule(code, Scope.SUBSCRIPTION, Severity.ERROR, Action.END_REQUEST, "an unknown error of a request")
    return CodeRule(code, Scope.GATEWAY, Severity.WARNING, Action.NONE, "an unknown error of no request")


MOST_FARM_CHARACTERS = 64
_FARM_NAME = re.compile(r"(?::|\bdemand\.)\s*([\w.-]+)\s*\Z")
_NEW_PORT = re.compile(r"\bport\W{0,5}(\d{1,5})(?!\d)", re.IGNORECASE)


def farm_name(text: str) -> str:
    """Return the farm that a farm notice names ("…connection is OK:usfarm": usfarm), "" if it names none."""
    found = _FARM_NAME.search(text)
    return found[1][:MOST_FARM_CHARACTERS] if found else ""


def new_port(text: str) -> int | None:
    """Return the port that a message 1300 names ("…on the new Port - 7498": 7498), None if it names none."""
    found = _NEW_PORT.search(text)
    port = int(found[1]) if found else 0
    return port if 0 < port <= MAX_PORT else None


def says_read_only(message: ErrorMessage) -> bool:
    """Tell whether a gateway refused something because it is in its Read-Only API mode."""
    return rule_for(message) == replace(_READ_ONLY, code=message.code)
