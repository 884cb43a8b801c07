"""What a subscriber may have: the permissions that a token carries.

The rule of the file: what is not permitted is refused, and what is not understood is an error, never skipped. It judges
a contract as IB has resolved it, since a client may write any symbol beside a con_id. It knows neither tokens nor
connections.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Self

from ibfast.config.checks import require, require_whole
from ibfast.contracts import Contract
from ibfast.errors import ConfigError
from ibfast.fanout.encoding.channels import DATA_TYPES, MODES

__all__ = ["Permissions"]

ANY = "*"

# No sets in brackets: two wildcards are enough to say what is meant, and read without a manual.
_PATTERN = re.compile(r"[!-Z\\^-~](?:[ -Z\\^-~]{0,62}[!-Z\\^-~])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What the holder of a token may subscribe to.

    Attributes:
        symbols: patterns of which one must match the symbol, as it is written: `*` is any text, `?` one character.
        data_types: those of a subscription; "ALL" also permits what it consists of, "*" is any.
        modes: those of a subscription; "*" is any.
        least_interval_ms: the shortest interval, and the shortest time between two requests for data of one instrument.
        subscriptions: how many at once over all connections, None: as many as the server allows each connection.
        max_bytes_per_s: the bandwidth of all connections together, 0: any.
        lines: how many market-data lines, books and others at IB at once over all connections, None: as many as the
            server allows any token.
        new_instruments: how many instruments that nobody has at that time all sessions of the token may ask for in an
            hour, None: as many as the server allows anybody.
        metrics: whether the holder may read `/metrics`, and the reasons in `/healthz`.

    Raises:
        ConfigError: a field has a value that it can't have.
    """

    symbols: tuple[str, ...]
    data_types: tuple[str, ...] = (ANY,)
    modes: tuple[str, ...] = (ANY,)
    least_interval_ms: int = 0
    subscriptions: int | None = None
    max_bytes_per_s: int = 0
    new_instruments: int | None = None
    lines: int | None = None
    metrics: bool = False

    def __post_init__(self) -> None:
        for name in ("symbols", "data_types", "modes"):
            _require_texts(name, getattr(self, name))
        for pattern in self.symbols:
            remedy = "give a symbol of printable ASCII, in which * is any text and ? any character"
            require(_PATTERN.fullmatch(pattern) is not None, "symbols", pattern, remedy)
        _require_known("data_types", self.data_types, (*DATA_TYPES, ANY))
        _require_known("modes", self.modes, (*MODES, ANY))
        require_whole("least_interval_ms", self.least_interval_ms, at_least=0)
        for name in ("subscriptions", "new_instruments", "lines"):
            if getattr(self, name) is not None:
                require_whole(name, getattr(self, name), at_least=0)
        require_whole("max_bytes_per_s", self.max_bytes_per_s, at_least=0)
        require(isinstance(self.metrics, bool), "metrics", self.metrics, "give true or false")

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """Make permissions of a table of TOML or an object of JSON.

        Raises:
            ConfigError: `symbols` is missing, a field is unknown, or it has a value that it can't have.
        """
        known = [field.name for field in fields(cls)]
        for name in table:
            if name not in known:
                raise ConfigError(f"there is no permission {name!r}: there are {', '.join(known)}")
        if "symbols" not in table:
            raise ConfigError('symbols is missing: give those that are permitted, ["*"] for all')
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in table.items()
        }
        return cls(**values)

    def as_table(self) -> dict[str, Any]:
        """Return all fields by name, as `of` takes them and `welcome` tells them; None is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }

    def capped(self, subscriptions: int, new_instruments: int) -> Permissions:
        """Return these with no more subscriptions and new instruments than the server allows anybody."""
        own, new = self.subscriptions, self.new_instruments
        return replace(
            self,
            subscriptions=subscriptions if own is None else min(own, subscriptions),
            new_instruments=new_instruments if new is None else min(new, new_instruments),
        )

    def allows(self, contract: Contract, data_type: str, mode: str, interval_ms: int) -> str | None:
        """Return None if a subscription is permitted, else the reason why it is not.

        Ask with the contract that IB has resolved. With one that a client wrote, only a refusal means something. How
        many subscriptions there are, and at what rate they flow, is for the caller to compare with the attributes.

        Args:
            contract: the qualified contract.
            data_type: one of `channels.DATA_TYPES`.
            mode: one of `channels.MODES`.
            interval_ms: of a subscription, or the one to which it is to be changed; a snapshot has none.
        """
        if not self._allows_contract(contract):
            return f"the token does not permit the symbol {contract.symbol!r}"
        if not self._allows_data_type(data_type):
            return f"the token does not permit the data type {data_type!r}: it permits {', '.join(self.data_types)}"
        if not {ANY, mode} & set(self.modes):
            return f"the token does not permit the mode {mode!r}: it permits {', '.join(self.modes)}"
        if mode != "snapshot" and interval_ms < self.least_interval_ms:
            return f"the token does not permit interval_ms={interval_ms}: it permits {self.least_interval_ms} or more"
        return None

    def bandwidth(self, asked: int) -> int:
        """Return the bytes per second of a session that asks for so many; 0 is no limit."""
        return min(filter(None, (asked, self.max_bytes_per_s)), default=0)

    def _allows_contract(self, contract: Contract) -> bool:
        if ANY in self.symbols:
            return True
        # What these are made of is named by con_ids alone, whatever symbol stands beside them.
        if contract.sec_type == "BAG" or contract.combo_legs or contract.delta_neutral_contract is not None:
            return False
        return any(fnmatchcase(contract.symbol, pattern) for pattern in self.symbols)

    def _allows_data_type(self, data_type: str) -> bool:
        if ANY in self.data_types:
            return True
        permitted = {part for name in self.data_types for part in DATA_TYPES[name]}
        return set(DATA_TYPES[data_type]) <= permitted


def _require_texts(field: str, value: object) -> None:
    valid = isinstance(value, tuple) and len(value) > 0 and all(isinstance(item, str) for item in value)
    require(valid, field, value, "give a list of texts, one at least")


def _require_known(field: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    for value in values:
        require(value in known, field, value, f"give some of {', '.join(known)}")
