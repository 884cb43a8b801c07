"""The binary messages of the stream protocol, read by plain Python straight from docs/stream-protocol.md.

The rule of the file: it shares nothing with the package, not even the names of fields, and it is slow. What it can't
read is a `RefusedError`.
"""

from __future__ import annotations

import struct
from typing import Any

NAN = 0x7FF8000000000000
LIMIT = 1 << 51
TICK_TYPES = range(-1, 254)
COLUMNS = {
    "ticks": "kind:i8 attribs:iu32 price:p size:s text:iu32",
    "depth": "kind:i8 attribs:i8 position:i32 price:p size:s market_maker:iu32",
    "bars": "kind:i8 count:i32 event_ns:e open:r-close high:r-open low:r-open close:r-open volume:s wap:x",
    "greeks": "kind:i8 attribs:i32 implied_vol:x delta:x option_price:x pv_dividend:x gamma:x vega:x theta:x "
    "und_price:x",
}
GRIDS = ("price", "size", "trade_size")
NUMBERS = {
    "price": {
        "quotes": ("bid", "ask"), "trades": ("price",), "ticks": ("price",), "depth": ("price",),
        "bars": ("open", "high", "low", "close"),
    },
    "size": {
        "quotes": ("bid_size", "ask_size", "bid_size<", "ask_size<"), "ticks": ("size",), "depth": ("size",),
        "bars": ("volume",),
    },
    "trade_size": {"trades": ("size",)},
}  # fmt: skip
BOUNDS = {"i8": (0, 1 << 8), "iu32": (0, 1 << 32), "i32": (-(1 << 31), 1 << 31)}
SHAPES = {
    "00": (0, 0, 1, 0), "01": (0, 0, 0, 1), "100": (0, 0, 2, 0), "101": (0, 0, 0, 2), "1100": (1, 2, 1, 1),
    "1101": (0, 0, 1, 1), "11100": (1, 0, 1, 0), "11101": (0, 1, 0, 1), "11110": None, "11111": "EXT",
}  # fmt: skip


class RefusedError(Exception):
    """No server sends this."""


def require(holds: object, what: str) -> None:
    if not holds:
        raise RefusedError(what)


def double(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


def bits_of(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def signed(value: int) -> int:
    """Wrap to 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def unzigzag(v: int) -> int:
    return v >> 1 if v % 2 == 0 else -((v + 1) >> 1)


class Bits:
    def __init__(self, message: bytes, at: int = 0) -> None:
        self.number = int.from_bytes(message, "little")
        self.size = 8 * len(message)
        self.at = at

    def take(self, n: int) -> int:
        value = self.number >> self.at & ((1 << n) - 1)
        self.at += n
        require(self.at <= self.size, "beyond the message")
        return value

    def eg(self, k: int) -> int:
        t = k
        while not self.take(1):
            t += 1
            require(t <= 52, "t above 52")
        require(t <= 52, "t above 52")
        return (1 << t | self.take(t)) - (1 << k)

    def uniform(self, n: int) -> int:
        if n == 1:
            return 0
        b = (n - 1).bit_length()
        u = (1 << b) - n
        x = self.take(b - 1)
        return x if x < u else 2 * x + self.take(1) - u

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(8)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            require(shift < 63, "a varint of more than 63 bits")


class Number:
    def __init__(self) -> None:
        self.bits, self.n = NAN, 0

    def copy(self) -> Number:
        other = Number()
        other.bits, other.n = self.bits, self.n
        return other


class Grid:
    def __init__(self, step: int, decimals: int) -> None:
        self.step, self.decimals = step, decimals

    def place(self, number: Number, n: int) -> None:
        require(abs(n * self.step) < LIMIT, "a place beyond the grid")
        number.n, number.bits = n, bits_of(float(n * self.step) / float(10**self.decimals))

    def read(self, bits: Bits, number: Number, k: int, *, fresh: bool = False) -> None:
        v = bits.eg(k)
        if v:
            self.place(number, v if fresh else number.n + unzigzag(v))
            return
        escape = bits.take(2)
        if escape == 0:
            number.bits = NAN
        elif escape == 1:
            number.bits = bits.take(64)
        elif escape == 2:
            e = bits.take(3) + 1
            near = number.n * self.step * 10**e
            m = unzigzag(bits.eg(6)) + near
            require(abs(m) < LIMIT and abs(near) < LIMIT, "too fine")
            number.bits = bits_of(float(m) / float(10 ** (self.decimals + e)))
        else:
            self.place(number, unzigzag(bits.eg(12)))

    def read_state(self, bits: Bits) -> Number:
        number = Number()
        if bits.take(1):
            self.place(number, unzigzag(bits.eg(12)))
        else:
            raw = bits.take(64)
            self.place(number, unzigzag(bits.eg(12)))
            number.bits = raw
        return number


def grid_from(bits: Bits) -> Grid:
    step, decimals = bits.take(16), bits.take(4)
    require(step > 0 and decimals < 15, "a grid")
    return Grid(step, decimals)


class Channel:
    def __init__(self, description: dict[str, Any]) -> None:
        self.description = description
        self.families = description["families"]
        self.unit = description["unit_ns"]
        self.span = max(1, description["span_ns"] // self.unit)
        self.price = self.size = self.trade_size = Grid(1, 0)
        self.has_state = False
        self.reset()

    def reset(self) -> None:
        self.k = [0] * 8
        self.side = 0
        self.quote = {name: Number() for name in ("bid", "ask", "bid_size", "ask_size", "bid_size<", "ask_size<")}
        self.trade = {name: Number() for name in ("price", "size")}
        self.meta: dict[str, dict[str, int]] = {"quotes": {}, "trades": {}}
        for meta in self.meta.values():
            meta |= dict.fromkeys(("kind", "attribs", "event_ns", "exchange", "conditions"), 0)
        self.seen: dict[str, int] = {}
        self.lines: dict[str, dict[Any, dict[str, Any]]] = {family: {} for family in COLUMNS}
        self.book: list[list[tuple[Number, Number, int]]] = [[], []]
        self.book_head = {"kind": 0, "attribs": 0, "recv_ns": 0}

    # ---- pieces

    def piece(self, bits: Bits, start: int, window_seq: int) -> list[tuple[str, dict[str, Any]]]:
        out = []
        seq = time = 0
        for i in range(bits.eg(self.k[0]) + 1):
            if i == 0:
                time = bits.uniform(self.span)
            elif self.span > 1:
                time += bits.eg(self.k[1])
            require(time < 1 << 31, "too late")
            if self.description["ordered"]:
                seq = seq + bits.eg(4) if i else window_seq - bits.eg(5)
                require(0 <= seq <= window_seq, "seq")
            place = 0
            while place < len(self.families) - 1 and bits.take(1):
                place += 1
            family = self.families[place]
            recv_ns = signed(start + time * self.unit)
            row = self.row(family, bits, recv_ns)
            out.append((family, {**row, "recv_ns": recv_ns, "seq": seq}))
        return out

    def row(self, family: str, bits: Bits, recv_ns: int) -> dict[str, Any]:
        if family == "quotes":
            self.read_quote(bits, recv_ns)
        elif family == "trades":
            self.read_trade(bits, recv_ns)
        else:
            return self.read_line(family, bits, recv_ns)
        self.seen[family] = recv_ns
        return self.top(family)

    def top(self, family: str) -> dict[str, Any]:
        numbers, names = (self.quote, 4) if family == "quotes" else (self.trade, 2)
        row = {**self.meta[family], **{name: numbers[name].bits for name in list(numbers)[:names]}}
        if family == "quotes":
            del row["exchange"], row["conditions"]
        return row

    def extension(self, family: str, bits: Bits, recv_ns: int) -> None:
        what = bits.take(4)
        if what == 0:
            i = bits.take(3)
            self.k[i] = bits.take(5)
            return
        if what == 6:
            which = bits.take(2)
            require(which < 3, "a grid that does not exist")
            self.regrid(GRIDS[which], bits)
            return
        known = {"quotes": 3, "trades": 5}.get(family, 0)
        require(what <= known, "an unknown EXT")
        meta = self.meta[family]
        if what == 3:
            meta["event_ns"] = self.event(bits, meta["event_ns"], recv_ns)
            return
        name = {1: "kind", 2: "attribs", 4: "exchange", 5: "conditions"}[what]
        meta[name] = bits.eg(3)
        require(meta[name] < (1 << 8 if what == 1 else 1 << 32), name)

    def regrid(self, grid: str, bits: Bits) -> None:
        """The numbers of a grid stay; where they lie is not known any more."""
        setattr(self, grid, grid_from(bits))
        for family, columns in NUMBERS[grid].items():
            if family in ("quotes", "trades"):
                records = [self.quote if family == "quotes" else self.trade]
            else:
                records = list(self.lines[family].values())
            for record in records:
                for name in columns:
                    record[name].n = 0
        for price, size, _ in self.book[0] + self.book[1]:
            if grid == "price":
                price.n = 0
            elif grid == "size":
                size.n = 0

    def event(self, bits: Bits, last: int, recv_ns: int) -> int:
        u = bits.take(3)
        if u <= 3:
            return signed(last + unzigzag(bits.eg(4)) * 1000**u)
        if u <= 6:
            unit = 1000 ** (u - 3)
            return signed((recv_ns // unit - unzigzag(bits.eg(self.k[7]))) * unit)
        return signed(bits.take(64))

    def read_quote(self, bits: Bits, recv_ns: int) -> None:
        while True:
            code = ""
            while code not in SHAPES:
                code += str(bits.take(1))
            if SHAPES[code] != "EXT":
                break
            self.extension("quotes", bits, recv_ns)
        shape: Any = SHAPES[code] or (bits.take(1), bits.take(2), bits.take(2), bits.take(2))
        require(max(shape[1:]) < 3, "a shape with a 3")
        quote = self.quote
        bid_n = quote["bid"].n
        if shape[0]:
            self.price.read(bits, quote["bid"], self.k[2])
        if shape[1] == 1:
            self.price.read(bits, quote["ask"], self.k[2])
        elif shape[1] == 2:
            self.price.place(quote["ask"], quote["ask"].n + quote["bid"].n - bid_n)
        for name, how, moved in (("bid_size", shape[2], shape[0]), ("ask_size", shape[3], shape[1])):
            was = quote[name].copy()
            if how == 1:
                self.size.read(bits, quote[name], self.k[4] if moved else self.k[3], fresh=bool(moved))
            elif how == 2:
                quote[name] = quote[name + "<"]
            if how:
                quote[name + "<"] = was

    def read_trade(self, bits: Bits, recv_ns: int) -> None:
        while bits.take(1):
            self.extension("trades", bits, recv_ns)
        has_quotes = "quotes" in self.families
        other, same = ("bid", "ask") if self.side else ("ask", "bid")
        if bits.take(1):
            if has_quotes and not bits.take(1):
                self.trade["price"] = self.quote[other].copy()
            elif has_quotes and not bits.take(1):
                self.trade["price"] = self.quote[same].copy()
            else:
                self.price.read(bits, self.trade["price"], self.k[5])
        if bits.take(1):
            self.trade_size.read(bits, self.trade["size"], self.k[6], fresh=True)
        if has_quotes:
            if self.trade["price"].bits == self.quote["ask"].bits:
                self.side = 1
            elif self.trade["price"].bits == self.quote["bid"].bits:
                self.side = 0

    # ---- the other families

    def key(self, family: str, bits: Bits) -> tuple[Any, dict[str, int]]:
        """Which remembered row, and what of the row the key says."""
        if family == "bars":
            return None, {}
        if family == "depth":
            side = bits.take(2)
            side = bits.take(8) if side == 3 else side
            operation = bits.take(2)
            operation = bits.take(8) if operation == 3 else operation
            return (min(side, 2), operation == 2), {"side": side, "operation": operation}
        tick_type = unzigzag(bits.eg(3))
        require(-(1 << 31) <= tick_type < 1 << 31, "tick_type")
        return (tick_type if tick_type in TICK_TYPES else "others"), {"tick_type": tick_type}

    def line(self, family: str, key: Any) -> dict[str, Any]:
        if key not in self.lines[family]:
            self.lines[family][key] = {"growth": 0}
            for column in COLUMNS[family].split():
                name, how = column.split(":")
                self.lines[family][key][name] = NAN if how == "x" else 0 if how[0] in "ie" else Number()
        return self.lines[family][key]

    def read_line(self, family: str, bits: Bits, recv_ns: int) -> dict[str, Any]:
        while bits.take(1):
            self.extension(family, bits, recv_ns)
        key, said = self.key(family, bits)
        line = self.line(family, key)
        line |= said | {"recv_ns": recv_ns}
        columns = [column.split(":") for column in COLUMNS[family].split()]
        present = [bits.take(1) for _ in columns]
        for (name, how), is_present in zip(columns, present, strict=True):
            if family == "depth" and name == "price":
                self.from_book(line)
            if how == "e":
                if is_present:
                    now = self.event(bits, line[name], recv_ns)
                    line["growth"] = now - line[name]
                line[name] = signed(line[name] + line["growth"])
            elif is_present:
                self.read_column(bits, line, name, how)
        if family == "depth":
            self.to_book(line)
        return self.line_row(family, line)

    def read_column(self, bits: Bits, line: dict[str, Any], name: str, how: str) -> None:
        if how[0] == "i":
            line[name] += unzigzag(bits.eg(self.k[7]))
            require(BOUNDS[how][0] <= line[name] < BOUNDS[how][1], name)
        elif how == "p":
            self.price.read(bits, line[name], self.k[2])
        elif how == "s":
            self.size.read(bits, line[name], self.k[3])
        elif how == "x":
            leading, trailing = bits.take(3), bits.take(3)
            require(leading + trailing < 8, "no byte")
            line[name] ^= bits.take(8 * (8 - leading - trailing)) << 8 * trailing
        else:
            v = bits.eg(self.k[2])
            if v:
                self.price.place(line[name], line[how[2:]].n + unzigzag(v - 1))
            else:
                line[name].bits = bits.take(64)

    def line_row(self, family: str, line: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value.bits if isinstance(value, Number) else value for name, value in line.items() if name != "growth"
        }

    def from_book(self, line: dict[str, Any]) -> None:
        side, position = line["side"], line["position"]
        if line["operation"] == 1 and side < 2 and 0 <= position < len(self.book[side]):
            price, size, line["market_maker"] = self.book[side][position]
            line["price"], line["size"] = price.copy(), size.copy()

    def to_book(self, line: dict[str, Any]) -> None:
        side, position = line["side"], line["position"]
        level = line["price"].copy(), line["size"].copy(), line["market_maker"]
        if line["kind"] == 18:
            self.book = [[], []]
            return
        self.book_head = {name: line[name] for name in ("kind", "attribs", "recv_ns")}
        if side > 1 or position < 0:
            return
        levels = self.book[side]
        if line["operation"] == 0 and position <= len(levels):
            levels.insert(position, level)
            del levels[256:]
        elif line["operation"] == 1 and position < len(levels):
            levels[position] = level
        elif line["operation"] == 1 and position == len(levels) < 256:
            levels.append(level)
        elif line["operation"] == 2 and position < len(levels):
            del levels[position]

    # ---- snapshots

    def state(self, bits: Bits) -> None:
        self.reset()
        self.price, self.size, self.trade_size = (grid_from(bits) for _ in GRIDS)
        self.k = [bits.take(5) for _ in range(8)]
        if {"quotes", "trades"} <= set(self.families):
            self.side = bits.take(1)
        for family in self.families:
            if family in self.meta:
                self.top_state(family, bits)
                continue
            count = bits.eg(3)
            require(count <= 256, "rows")
            for _ in range(count):
                self.line_state(family, bits)
            if family == "depth":
                self.book_state(bits)
        require(bits.size - bits.at < 8, "bytes after a state")
        self.has_state = True

    def top_state(self, family: str, bits: Bits) -> None:
        if not bits.take(1):
            return
        self.seen[family] = signed(bits.take(64))
        meta = self.meta[family]
        meta["kind"] = bits.take(8)
        meta["attribs"] = bits.eg(3)
        meta["event_ns"] = signed(bits.take(64))
        if family == "trades":
            meta["exchange"], meta["conditions"] = bits.eg(3), bits.eg(3)
        require(all(meta[name] < 1 << 32 for name in ("attribs", "exchange", "conditions")), "meta")
        numbers = self.quote if family == "quotes" else self.trade
        for name in numbers:
            grid = self.size if family == "quotes" else self.trade_size
            numbers[name] = (grid if "size" in name else self.price).read_state(bits)

    def line_state(self, family: str, bits: Bits) -> None:
        key, said = self.key(family, bits)
        line = self.line(family, key)
        line |= said | {"recv_ns": signed(bits.take(64))}
        for column in COLUMNS[family].split():
            name, how = column.split(":")
            if how[0] == "i":
                line[name] = unzigzag(bits.eg(3))
                require(BOUNDS[how][0] <= line[name] < BOUNDS[how][1], name)
            elif how == "e":
                line[name], line["growth"] = signed(bits.take(64)), bits.take(64)
            elif how == "x":
                line[name] = bits.take(64)
            else:
                line[name] = (self.size if how == "s" else self.price).read_state(bits)

    def book_state(self, bits: Bits) -> None:
        self.book_head = {"kind": bits.take(8), "attribs": bits.take(8), "recv_ns": signed(bits.take(64))}
        for levels in self.book:
            count = bits.eg(3)
            require(count <= 256, "levels")
            for _ in range(count):
                level = self.price.read_state(bits), self.size.read_state(bits), bits.eg(3)
                require(level[2] < 1 << 32, "market_maker")
                levels.append(level)

    def current(self) -> list[tuple[str, dict[str, Any]]]:
        """The current rows: quotes and trades, last rows by key, the book as inserts."""
        rows: list[tuple[str, dict[str, Any]]] = []
        for family in self.families:
            if family in self.meta:
                if family in self.seen:
                    rows.append((family, {**self.top(family), "recv_ns": self.seen[family]}))
            elif family == "depth":
                for side, levels in enumerate(self.book):
                    for position, (price, size, market_maker) in enumerate(levels):
                        level = {"price": price.bits, "size": size.bits, "market_maker": market_maker}
                        place = {"side": side, "operation": 0, "position": position}
                        rows.append((family, {**self.book_head, **place, **level}))
            else:
                known = self.lines[family]
                keys = sorted(known, key=lambda key: (key == "others", key) if key is not None else (False, 0))
                rows += [(family, self.line_row(family, known[key])) for key in keys]
        return [(family, {**row, "seq": 0}) for family, row in rows]


class ReferenceDecoder:
    """One connection."""

    def __init__(self) -> None:
        self.channels: dict[int, Channel] = {}
        self.clocks: dict[int, tuple[int, int]] = {}

    def open(self, channel: int, description: dict[str, Any]) -> None:
        self.channels[channel] = Channel(description)

    def close(self, channel: int) -> None:
        del self.channels[channel]

    def channel(self, number: int) -> Channel:
        require(number in self.channels, "a channel that is not open")
        return self.channels[number]

    def decode(self, message: bytes) -> dict[str, Any]:
        """Return what the message says; `rows` are (channel, family, fields), numbers as the bits of doubles."""
        bits = Bits(message)
        first = bits.take(8)
        if 0x80 <= first < 0x90:
            return self.window(bits, first - 0x80)
        if 0x10 <= first < 0x20:
            time, seq = signed(bits.take(64)), bits.take(64)
            require(bits.at == bits.size, "a clock's length")
            self.clocks[first - 0x10] = time, seq
            return {"message": "clock", "class": first - 0x10, "time_ns": time, "seq": seq}
        if first == 0x20:
            number = bits.varint()
            channel = self.channel(number)
            time, seq = signed(bits.take(64)), bits.take(64)
            channel.state(bits)
            rows = [(number, family, row) for family, row in channel.current()]
            return {"message": "snapshot", "channel": number, "time_ns": time, "seq": seq, "rows": rows}
        if first == 0x30:
            number, reason = bits.varint(), bits.take(8)
            lag = {"from": bits.take(64), "to": bits.take(64)}
            count = bits.varint()
            require(bits.at == bits.size and reason < 3, "a lag's length or reason")
            self.channel(number).has_state = False
            reason = ("slow", "overrun", "incomplete")[reason]
            return {"message": "lag", "channel": number, "reason": reason, **lag, "count": count - 1 if count else None}
        require(first == 0x40, "an unknown first byte")
        text_id = bits.varint()
        require(text_id < 1 << 32, "a text's id")
        try:
            return {"message": "text", "id": text_id, "text": message[bits.at // 8 :].decode()}
        except UnicodeDecodeError as error:
            raise RefusedError("UTF-8") from error

    def window(self, bits: Bits, cls: int) -> dict[str, Any]:
        require(cls in self.clocks, "no clock")
        base, seq = bits.varint(), bits.varint()
        spans = {
            channel.description["span_ns"] or channel.unit
            for channel in self.channels.values()
            if channel.description["class"] == cls
        }
        require(len(spans) == 1, "no channel of the class")
        span_ns = spans.pop()
        require(base <= (1 << 62) // span_ns, "too far from the clock")
        start = signed(self.clocks[cls][0] + base * span_ns)
        window_seq = (self.clocks[cls][1] + seq) % (1 << 64)
        rows = []
        number = -1
        while bits.at < bits.size:
            low = bits.take(3)
            if low == 7:
                v = bits.take(5)
                number += 7 + v + (bits.varint() if v == 31 else 0)
                require(bits.at < bits.size and number < 1 << 24, "a skip to nowhere")
                continue
            number += 1 + low
            channel = self.channel(number)
            require(channel.has_state and channel.description["class"] == cls, "no state, or another class")
            rows += [(number, family, row) for family, row in channel.piece(bits, start, window_seq)]
            bits.at = (bits.at + 7) // 8 * 8
        return {"message": "window", "class": cls, "time_ns": start, "seq": window_seq, "rows": rows}
