"""Messages of the gateway to those who want to know of them, and what each one asks of the session.

The rule of the file: it judges and it tells. Acting on a rule is the session's business; logging is the caller's. A
callback that raises harms neither the session nor the other callbacks.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import inspect
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeAlias, TypeVar, overload

from ibfast.config.checks import require_seconds
from ibfast.errors import ConfigError
from ibfast.policy.codes import Action, CodeRule, Severity, farm_name, rule_for, rules_of
from ibfast.records import Scope
from ibfast.wire.responses import ErrorMessage

__all__ = ["ErrorHandler", "Handled"]

Callback: TypeAlias = Callable[[ErrorMessage, CodeRule], object]
Report: TypeAlias = Callable[[Callback, Exception], None]
CallbackType = TypeVar("CallbackType", bound=Callback)
EnumType = TypeVar("EnumType", bound=Enum)

# The nightly reset repeats a message many times, minutes apart at most.
REPEAT_WINDOW_S = 300.0
MAX_REMEMBERED = 1024
OTHER_CODES = -2


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a message.

    Attributes:
        rule: what it means.
        repeated: how often the same was said of the same thing before, without a break: 0 is news.
    """

    rule: CodeRule
    repeated: int


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    callback: Callback
    codes: frozenset[int] | None
    scope: Scope | None
    severity: Severity

    def wants(self, rule: CodeRule) -> bool:
        return (
            (self.codes is None or rule.code in self.codes)
            and (self.scope is None or rule.scope is self.scope)
            and rule.severity >= self.severity
        )


@dataclass(slots=True)
class _Said:
    code: int
    at_s: float
    repeated: int = 0


class ErrorHandler:
    """Judges the gateway's messages and tells them to callbacks.

        errors = ErrorHandler({354: {"action": "renew"}})

        @errors.on(severity=Severity.ERROR)
        def alarm(message, rule): ...

    Args:
        overrides: by code, a CodeRule, or the fields of it that differ (`scope`, `severity`, `action`, `text`; enums
            by member or by name). Fields apply to whatever the table says of a code.
        report: told of a callback that raised, and of the exception.
        repeat_window_s: after so many seconds of silence the same message is news again.

    Attributes:
        counts: messages by code; of the 1024 first codes, and of all others together under `OTHER_CODES`.
        failures: how many calls of callbacks raised.

    Raises:
        ConfigError: an override has no such field or value, or would let a notice end something.
    """

    def __init__(
        self,
        overrides: Mapping[int, CodeRule | Mapping[str, Any]] | None = None,
        *,
        report: Report | None = None,
        repeat_window_s: float = REPEAT_WINDOW_S,
    ) -> None:
        require_seconds("repeat_window_s", repeat_window_s)
        self.counts: Counter[int] = Counter()
        self.failures = 0
        self._overrides = {code: _fields(code, override) for code, override in (overrides or {}).items()}
        self._report = report
        self._repeat_window_s = repeat_window_s
        self._subscriptions: dict[_Subscription, None] = {}
        # Of what was spoken of, the longest ago first: what was said of it last.
        self._said: OrderedDict[tuple[Scope, int, str], _Said] = OrderedDict()

    def rule(self, message: ErrorMessage) -> CodeRule:
        """Return what a message means, with the user's overrides."""
        rule = rule_for(message)
        fields = self._overrides.get(message.code)
        return rule if fields is None else replace(rule, **fields)

    @overload
    def on(
        self,
        callback: Callback,
        *,
        code: int | Iterable[int] | None = None,
        scope: Scope | None = None,
        severity: Severity | None = None,
    ) -> Callable[[], None]: ...

    @overload
    def on(
        self,
        callback: None = None,
        *,
        code: int | Iterable[int] | None = None,
        scope: Scope | None = None,
        severity: Severity | None = None,
    ) -> Callable[[CallbackType], CallbackType]: ...

    def on(
        self,
        callback: Callback | None = None,
        *,
        code: int | Iterable[int] | None = None,
        scope: Scope | None = None,
        severity: Severity | None = None,
    ) -> Callable[[], None] | Callable[[CallbackType], CallbackType]:
        """Have a function called with every message of a kind, and with its rule.

        Args:
            callback: a plain function, which must not wait. None returns a decorator: `@errors.on(code=10197)`.
            code: of this code, or of one of these.
            scope: of this fault domain.
            severity: at least so bad.

        Returns:
            A function that ends this; calling it again does nothing.

        Raises:
            ConfigError: the callback is a coroutine function, which would not be awaited.
        """
        codes = None if code is None else frozenset({code} if isinstance(code, int) else code)

        def subscribe(wanting: Callback) -> _Subscription:
            if inspect.iscoroutinefunction(wanting):
                raise ConfigError(f"callback={wanting!r} is not possible: give a plain function that starts a task")
            subscription = _Subscription(wanting, codes, scope, Severity.NOTICE if severity is None else severity)
            self._subscriptions[subscription] = None
            return subscription

        if callback is not None:
            subscription = subscribe(callback)
            return lambda: self._subscriptions.pop(subscription, None)

        def decorate(decorated: CallbackType) -> CallbackType:
            subscribe(decorated)
            return decorated

        return decorate

    def handle(self, message: ErrorMessage, now_s: float) -> Handled:
        """Judge a message, count it and tell it to everybody who wants it.

        Args:
            message: from the gateway.
            now_s: seconds of a monotonic clock.

        Returns:
            What it means, and whether it is news. Callbacks are told every time.
        """
        rule = self.rule(message)
        is_known = message.code in self.counts or len(self.counts) < MAX_REMEMBERED
        self.counts[message.code if is_known else OTHER_CODES] += 1
        repeated = self._repeated(message, rule.scope, now_s)
        for subscription in tuple(self._subscriptions):
            # A callback may take back another one.
            if subscription in self._subscriptions and subscription.wants(rule):
                self._call(subscription.callback, message, rule)
        return Handled(rule, repeated)

    def _call(self, callback: Callback, message: ErrorMessage, rule: CodeRule) -> None:
        try:
            callback(message, rule)
        except Exception as error:
            self.failures += 1
            if self._report is not None:
                self._report(callback, error)

    def _repeated(self, message: ErrorMessage, scope: Scope, now_s: float) -> int:
        about = scope, message.req_id, farm_name(message.message) if scope is Scope.FARM else ""
        said = self._said.pop(about, None)
        is_news = said is None or said.code != message.code or now_s - said.at_s > self._repeat_window_s
        repeated = 0 if said is None or is_news else said.repeated + 1
        self._said[about] = _Said(message.code, now_s, repeated)
        if len(self._said) > MAX_REMEMBERED:
            self._said.popitem(last=False)
        return repeated


_ENUMS: dict[str, type[Enum]] = {"scope": Scope, "severity": Severity, "action": Action}


def _fields(code: int, override: CodeRule | Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that an override changes, having tried it on everything that the table says of the code."""
    if not isinstance(code, int):
        raise ConfigError(f"overrides[{code!r}] is not possible: give the code as a number")
    if isinstance(override, CodeRule):
        if override.code != code:
            raise ConfigError(f"overrides[{code}] is a rule of code {override.code}: give a rule of code {code}")
        return {name: getattr(override, name) for name in (*_ENUMS, "text")}
    fields = {name: _value(code, name, value) for name, value in override.items()}
    for rule in rules_of(code):
        replace(rule, **fields)
    return fields


def _value(code: int, name: str, value: Any) -> Any:
    if name == "text" and isinstance(value, str):
        return value
    if name in _ENUMS:
        return _member(_ENUMS[name], f"overrides[{code}][{name!r}]", value)
    raise ConfigError(f"overrides[{code}] has {name}={value!r}: give {', '.join(_ENUMS)} or a text")


def _member(kind: type[EnumType], field: str, value: object) -> EnumType:
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and value.upper() in kind.__members__:
        return kind[value.upper()]
    names = ", ".join(name.lower() for name in kind.__members__)
    raise ConfigError(f"{field}={value!r} is not possible: give one of {names}")
