"""Who is told of which message, what an override may change, and that a broken callback hurts nobody."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast.errors import ConfigError
from ibfast.policy.codes import CODES, Action, CodeRule, Severity, rule_for
from ibfast.policy.error_handler import MAX_REMEMBERED, REPEAT_WINDOW_S, ErrorHandler
from ibfast.records import Scope
from ibfast.wire.responses import ErrorMessage

LINK_LOST = ErrorMessage(-1, 1100, "Connectivity between IB and TWS has been lost.")
LINK_RESTORED = ErrorMessage(-1, 1102, "Connectivity between IB and TWS has been restored - data maintained.")
FARM_OK = ErrorMessage(-1, 2104, "Market data farm connection is OK:usfarm")
FARM_BROKEN = ErrorMessage(-1, 2103, "Market data farm connection is broken:usfarm")
NOT_SUBSCRIBED = ErrorMessage(7, 354, "Requested market data is not subscribed.")
MESSAGES = (LINK_LOST, LINK_RESTORED, FARM_OK, FARM_BROKEN, NOT_SUBSCRIBED)


class Listener:
    """Remembers the codes that it was told of."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    def __call__(self, message: ErrorMessage, rule: CodeRule) -> None:
        assert rule.code == message.code
        self.codes.append(message.code)


def handle(errors: ErrorHandler, *messages: ErrorMessage) -> None:
    for message in messages:
        errors.handle(message, 0.0)


# --- who is told ---


@pytest.mark.parametrize(
    ("wanted", "codes"),
    [
        ({}, [1100, 1102, 2104, 2103, 354]),
        ({"code": 1102}, [1102]),
        ({"code": (1100, 354)}, [1100, 354]),
        ({"code": ()}, []),
        ({"scope": Scope.FARM}, [2104, 2103]),
        ({"severity": Severity.WARNING}, [1100, 2103, 354]),
        ({"severity": Severity.FATAL}, []),
        ({"scope": Scope.LINK, "severity": Severity.ERROR}, [1100]),
        ({"code": 354, "scope": Scope.LINK}, []),
    ],
)
def test_a_callback_gets_what_it_wants_and_no_more(wanted: dict[str, Any], codes: list[int]) -> None:
    errors, listener = ErrorHandler(), Listener()
    errors.on(listener, **wanted)
    handle(errors, *MESSAGES)
    assert listener.codes == codes


def test_a_decorated_function_stays_what_it_is() -> None:
    errors = ErrorHandler()
    told: list[str] = []

    @errors.on(code=354)
    def refused(message: ErrorMessage, rule: CodeRule) -> str:
        told.append(rule.text)
        return message.message

    handle(errors, *MESSAGES)
    assert told == [CODES[354].text]
    assert refused(NOT_SUBSCRIBED, CODES[354]) == NOT_SUBSCRIBED.message


def test_a_callback_is_taken_back_once_and_for_all() -> None:
    errors, listener = ErrorHandler(), Listener()
    first, second = errors.on(listener), errors.on(listener)
    handle(errors, LINK_LOST)
    assert listener.codes == [1100, 1100]
    first()
    first()
    handle(errors, LINK_RESTORED)
    assert listener.codes == [1100, 1100, 1102]
    second()
    handle(errors, LINK_LOST)
    assert listener.codes == [1100, 1100, 1102]


def test_a_callback_may_take_back_another_and_add_one_meanwhile() -> None:
    errors, late, victim = ErrorHandler(), Listener(), Listener()

    @errors.on()
    def meddle(message: ErrorMessage, rule: CodeRule) -> None:
        take_back()
        errors.on(late, code=message.code)

    take_back = errors.on(victim)
    handle(errors, LINK_LOST)
    assert (victim.codes, late.codes) == ([], [])
    handle(errors, LINK_LOST)
    assert (victim.codes, late.codes) == ([], [1100])


def test_a_coroutine_function_would_never_run() -> None:
    async def later(message: ErrorMessage, rule: CodeRule) -> None: ...

    with pytest.raises(ConfigError, match="plain function"):
        ErrorHandler().on(later)
    with pytest.raises(ConfigError, match="plain function"):
        ErrorHandler().on()(later)


# --- callbacks that raise ---


def test_a_callback_that_raises_is_reported_and_hurts_nobody() -> None:
    reported: list[tuple[object, Exception]] = []
    errors = ErrorHandler(report=lambda callback, error: reported.append((callback, error)))
    before, after = Listener(), Listener()
    problem = RuntimeError("broken")

    def broken(message: ErrorMessage, rule: CodeRule) -> None:
        raise problem

    errors.on(before)
    errors.on(broken)
    errors.on(after)
    assert errors.handle(LINK_LOST, 0.0).rule.action is Action.LINK_LOST
    assert reported == [(broken, problem)]
    assert errors.failures == 1
    assert before.codes == after.codes == [1100]


def test_a_failure_is_counted_where_nobody_wants_reports() -> None:
    errors = ErrorHandler()
    errors.on(lambda message, rule: 1 / 0)
    handle(errors, LINK_LOST, LINK_LOST)
    assert errors.failures == 2


def test_what_is_meant_for_the_whole_program_passes() -> None:
    errors = ErrorHandler()

    @errors.on()
    def stop(message: ErrorMessage, rule: CodeRule) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        handle(errors, LINK_LOST)


# --- overrides ---


def test_fields_change_and_the_rest_stays() -> None:
    errors = ErrorHandler({354: {"action": "renew", "severity": Severity.ERROR}, 2103: {"severity": "notice"}})
    rule = errors.rule(NOT_SUBSCRIBED)
    assert (rule.action, rule.severity, rule.scope, rule.text) == (
        Action.RENEW, Severity.ERROR, Scope.SUBSCRIPTION, CODES[354].text,
    )  # fmt: skip
    assert errors.rule(FARM_BROKEN).severity is Severity.NOTICE
    assert errors.rule(LINK_LOST) == rule_for(LINK_LOST)
    assert CODES[354].action is Action.END_REQUEST


def test_a_whole_rule_replaces_whatever_the_words_say() -> None:
    mine = CodeRule(162, Scope.SUBSCRIPTION, Severity.ADVISORY, Action.ADVISE, "mine")
    errors = ErrorHandler({162: mine})
    for text in ("Historical data request pacing violation", "HMDS query returned no data"):
        assert errors.rule(ErrorMessage(1, 162, text)) == mine


def test_callbacks_go_by_the_rule_as_overridden() -> None:
    errors, listener = ErrorHandler({354: {"scope": "account"}}), Listener()
    errors.on(listener, scope=Scope.ACCOUNT)
    handle(errors, *MESSAGES)
    assert listener.codes == [354]


def test_an_unknown_code_can_be_given_a_meaning() -> None:
    errors = ErrorHandler({10999: {"action": "advise", "severity": "advisory", "text": "known to me"}})
    rule = errors.rule(ErrorMessage(4, 10999, "?"))
    assert (rule.action, rule.severity, rule.text) == (Action.ADVISE, Severity.ADVISORY, "known to me")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"354": {"action": "renew"}}, r"overrides\['354'\] is not possible: give the code as a number"),
        ({354: {"action": "explode"}}, r"overrides\[354\]\['action'\]='explode'.*none, advise"),
        ({354: {"severity": 3}}, r"overrides\[354\]\['severity'\]=3"),
        ({354: {"colour": "red"}}, "colour='red'"),
        ({354: {"text": 1}}, "text=1"),
        ({354: CODES[200]}, "rule of code 200"),
        ({2104: {"action": "end_request"}}, "severity=NOTICE of code 2104"),
        ({2104: {"severity": "fatal"}}, "action=farm_ok of code 2104"),
        ({162: {"severity": "notice"}}, "severity=NOTICE of code 162"),
        ({321: {"action": "renew"}}, "severity=ADVISORY of code 321"),
        ({10999: {"severity": "notice"}}, "severity=NOTICE of code 10999"),
    ],
)
def test_an_impossible_override_is_refused_at_once(overrides: dict[Any, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ErrorHandler(overrides)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_an_impossible_window_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="repeat_window_s"):
        ErrorHandler(repeat_window_s=seconds)


# --- counts and repeats ---


def test_a_nightly_reset_is_told_every_time_and_is_news_once() -> None:
    errors, listener = ErrorHandler(), Listener()
    errors.on(listener, code=1100)
    repeated = [errors.handle(LINK_LOST, 60.0 * n).repeated for n in range(100)]
    assert repeated == list(range(100))
    assert listener.codes == [1100] * 100
    assert errors.counts == {1100: 100}


def test_news_is_what_was_not_said_last_of_the_same_thing() -> None:
    errors = ErrorHandler()
    other_farm = ErrorMessage(-1, 2104, "Market data farm connection is OK:cashfarm")
    said = [
        (LINK_LOST, 0), (LINK_LOST, 1), (LINK_RESTORED, 0), (LINK_LOST, 0),
        (FARM_OK, 0), (other_farm, 0), (FARM_OK, 1), (FARM_BROKEN, 0), (FARM_OK, 0), (other_farm, 1),
        (NOT_SUBSCRIBED, 0), (ErrorMessage(8, 354, NOT_SUBSCRIBED.message), 0), (NOT_SUBSCRIBED, 1),
    ]  # fmt: skip
    assert [errors.handle(message, 0.0).repeated for message, _ in said] == [repeated for _, repeated in said]


def test_silence_makes_the_same_news_again() -> None:
    errors = ErrorHandler()
    times = (0.0, REPEAT_WINDOW_S, 2 * REPEAT_WINDOW_S, 3 * REPEAT_WINDOW_S + 1)
    assert [errors.handle(LINK_LOST, now_s).repeated for now_s in times] == [0, 1, 2, 0]


def test_what_is_remembered_is_bounded_and_the_longest_ago_goes_first() -> None:
    errors = ErrorHandler()
    for req_id in range(MAX_REMEMBERED + 1):
        errors.handle(ErrorMessage(req_id, 354, ""), 0.0)
    assert errors.handle(ErrorMessage(MAX_REMEMBERED, 354, ""), 0.0).repeated == 1
    assert errors.handle(ErrorMessage(0, 354, ""), 0.0).repeated == 0


@given(st.lists(st.tuples(st.sampled_from(MESSAGES), st.floats(0, 1e6))))
def test_every_message_is_counted_and_told(said: list[tuple[ErrorMessage, float]]) -> None:
    errors, listener = ErrorHandler(), Listener()
    errors.on(listener)
    for message, now_s in said:
        assert errors.handle(message, now_s).rule == rule_for(message)
    assert listener.codes == [message.code for message, _ in said]
    assert errors.counts.total() == len(said)
