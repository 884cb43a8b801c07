"""The vectors are worth something: a decoder with a plausible mistake does not get through them.

The rule of the file: a mistake is one change of the text of the second decoder, `tests/support/stream_reference.py`.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import stream_reference
from tests.support.delta_vectors import FOLDER, said

SOURCE = Path(stream_reference.__file__).read_text(encoding="utf-8")
FILES = ("books", "full_book", "states")
VECTORS = [json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in FILES]
MISTAKES = {
    "an update does not start from the level": ("self.from_book(line)", "pass"),
    "an update leaves the level's price": (
        'line["price"], line["size"] = price.copy(), size.copy()',
        'line["size"] = size.copy()',
    ),
    "an update leaves the level's size": (
        'line["price"], line["size"] = price.copy(), size.copy()',
        'line["price"] = price.copy()',
    ),
    "an update leaves the level's market maker": ('size, line["market_maker"] = self', "size, _ = self"),
    "an update takes a level's bits without n": (
        'line["price"], line["size"] = price.copy(), size.copy()',
        'line["price"].bits, line["size"].bits = price.bits, size.bits',
    ),
    "an update takes a level's n without bits": (
        'line["price"], line["size"] = price.copy(), size.copy()',
        'line["price"].n, line["size"].n = price.n, size.n',
    ),
    "the levels change with the row": (
        'level = line["price"].copy(), line["size"].copy()',
        'level = line["price"], line["size"]',
    ),
    "inserts, too, start from the level": ('if line["operation"] == 1 and side < 2', "if side < 2"),
    "no update appends": ('elif line["operation"] == 1 and position == len(levels) < 256', "elif False"),
    "no insert at the end": ("position <= len(levels)", "position < len(levels)"),
    "an insert beyond the end appends": ("0 and position <= len(levels)", "0"),
    "a delete takes the last level": (
        "2 and position < len(levels):\n            del levels[position]",
        "2 and levels:\n            del levels[min(position, len(levels) - 1)]",
    ),
    "a 257th level is kept": ("del levels[256:]", "pass"),
    "a 257th level is appended": ("position == len(levels) < 256", "position == len(levels)"),
    "255 levels": ("del levels[256:]", "del levels[255:]"),
    "an insert into a full book is ignored": (
        "0 and position <= len(levels):",
        '0 and len(levels) == 256:\n            pass\n        elif line["operation"] == 0 and position <= len(levels):',
    ),
    "a reset empties one side": ("self.book = [[], []]\n            return", "self.book[0] = []\n            return"),
    "a reset empties nothing": ("self.book = [[], []]\n            return", "return"),
    "a reset is an operation": ('if line["kind"] == 18:', "if False:"),
    "side 2 has a book": ("if side > 1 or position < 0", "side = min(side, 1)\n        if position < 0"),
    "a position below 0 counts from the end": ("if side > 1 or position < 0", "if side > 1"),
    "another grid leaves the places": ("record[name].n = 0", "pass"),
    "another grid leaves the places of `before`": (
        '"bid_size", "ask_size", "bid_size<", "ask_size<"), "ticks"',
        '"bid_size", "ask_size"), "ticks"',
    ),
    "another grid leaves the places of the trade size": ('"trades": ("size",)', '"trades": ()'),
    "another grid leaves the places of the book's prices": ("price.n = 0", "pass"),
    "another grid leaves the places of the book's sizes": ("size.n = 0", "pass"),
    "another grid leaves the places of bars": ('"bars": ("open", "high", "low", "close")', '"bars": ()'),
    "another grid leaves the places of volumes": ('"bars": ("volume",)', '"bars": ()'),
    "another grid leaves the places of quotes": ('"quotes": ("bid", "ask")', '"quotes": ()'),
    "another grid leaves the places of sizes": ('"quotes": ("bid_size", "ask_size", ', '"quotes": ('),
    "another grid leaves the places of ticks": ('"ticks": ("price",)', '"ticks": ()'),
    "a snapshot's `before` is the size": (
        'numbers[name] = (grid if "size" in name else self.price).read_state(bits)\n',
        'numbers[name] = (grid if "size" in name else self.price).read_state(bits)\n'
        '        if family == "quotes":\n'
        '            for name in ("bid_size", "ask_size"):\n'
        '                numbers[name + "<"] = numbers[name].copy()\n',
    ),
    "a snapshot's growth is not taken": (
        '"growth"] = signed(bits.take(64)), bits.take(64)',
        '"growth"] = signed(bits.take(64)), bits.take(64) * 0',
    ),
    "a snapshot's doubles are not taken": (
        "line[name] = bits.take(64)\n            else",
        "bits.take(64)\n            else",
    ),
    "a state number has no n beside its bits": (
        "self.place(number, unzigzag(bits.eg(12)))\n            number.bits = raw",
        "bits.eg(12)\n            number.bits = raw",
    ),
    "a snapshot adds to what is known": ("self.reset()\n        self.price,", "self.price,"),
    "a snapshot's levels are not taken": ("levels.append(level)\n\n", "pass\n\n"),
    "a snapshot's side is not taken": ("self.side = bits.take(1)", "bits.take(1)"),
    "`side` is decided bid first": (
        'if self.trade["price"].bits == self.quote["ask"].bits:\n                self.side = 1\n'
        '            elif self.trade["price"].bits == self.quote["bid"].bits:\n                self.side = 0',
        'if self.trade["price"].bits == self.quote["bid"].bits:\n                self.side = 0\n'
        '            elif self.trade["price"].bits == self.quote["ask"].bits:\n                self.side = 1',
    ),
    "`side` is decided by value": (
        'if self.trade["price"].bits == self.quote["ask"].bits:\n                self.side = 1\n'
        '            elif self.trade["price"].bits == self.quote["bid"].bits:',
        'if double(self.trade["price"].bits) == double(self.quote["ask"].bits):\n                self.side = 1\n'
        '            elif double(self.trade["price"].bits) == double(self.quote["bid"].bits):',
    ),
    "`side` is decided by value, any NaN being every NaN": (
        'if self.trade["price"].bits == self.quote["ask"].bits:\n                self.side = 1\n'
        '            elif self.trade["price"].bits == self.quote["bid"].bits:',
        'if str(double(self.trade["price"].bits)) == str(double(self.quote["ask"].bits)):\n'
        "                self.side = 1\n"
        '            elif str(double(self.trade["price"].bits)) == str(double(self.quote["bid"].bits)):',
    ),
    "event_ns is truncated": ("signed((recv_ns // unit - ", "signed((int(recv_ns / unit) - "),
    "an escape to NaN forgets n": ("number.bits = NAN\n", "number.bits, number.n = NAN, 0\n"),
    "an escape to NaN is 0": ("number.bits = NAN\n", "number.bits = 0\n"),
    "an escape to NaN changes nothing": ("number.bits = NAN\n        elif", "pass\n        elif"),
    "a size that comes back is not exchanged": (
        'quote[name + "<"] = was',
        'quote[name + "<"] = quote[name] if how == 2 else was',
    ),
    "a class is not the channel's": (' and channel.description["class"] == cls, "no state', ', "no state'),
    "a window starts from another class's clock": ("self.clocks[cls][0]", "self.clocks[max(self.clocks)][0]"),
    "no byte between the zero bytes": ('require(leading + trailing < 8, "no byte")', "pass"),
    "a byte between the zero bytes at least": (
        'require(leading + trailing < 8, "no byte")',
        "trailing = min(trailing, 7 - leading)",
    ),
    "an unknown EXT is ignored": (
        'require(what <= known, "an unknown EXT")',
        "if what > known:\n            return",
    ),
    "quotes have the EXT of trades": ('"quotes": 3', '"quotes": 5'),
    "depth has the EXT of trades": (
        '.get(family, 0)\n        require(what <= known, "an unknown EXT")\n        meta = self.meta[family]',
        '.get(family, 5)\n        require(what <= known, "an unknown EXT")\n        meta = self.meta["trades"]',
    ),
    "a grid 3 is read and ignored": (
        'require(which < 3, "a grid that does not exist")',
        "if which == 3:\n                grid_from(bits)\n                return",
    ),
    "a grid 3 is ignored": (
        'require(which < 3, "a grid that does not exist")',
        "if which == 3:\n                return",
    ),
    "a grid may be anything": ('require(step > 0 and decimals < 15, "a grid")', "pass"),
    "a 3 in a shape is nothing": (
        'require(max(shape[1:]) < 3, "a shape with a 3")',
        "shape = tuple(x % 3 for x in shape)",
    ),
    "an ask of 3 is nothing": ("max(shape[1:]) < 3", "max(shape[2:]) < 3"),
    "257 levels in a state": ('require(count <= 256, "levels")', "pass"),
}


def decoder_with(mistake: tuple[str, str]) -> ModuleType:
    right, wrong = mistake
    assert SOURCE.count(right) == 1, right
    module = ModuleType("mistaken")
    exec(compile(SOURCE.replace(right, wrong), "mistaken", "exec"), module.__dict__)
    return module


def is_read(module: ModuleType, vector: dict[str, Any]) -> bool:
    """Tell whether a decoder gets through a file: it reads what it should, and refuses what it should."""
    failures = module.RefusedError, LookupError, ArithmeticError, ValueError
    decoder = module.ReferenceDecoder()
    for channel in vector["channels"]:
        decoder.open(channel["channel"], channel)
    for message in vector["messages"]:
        try:
            meaning = decoder.decode(bytes.fromhex(message["hex"]))
        except failures:
            return False
        if json.loads(json.dumps(said(meaning))) != message["says"]:
            return False
    for refused in vector["refused"]:
        try:
            copy.deepcopy(decoder).decode(bytes.fromhex(refused))
        except failures:
            continue
        return False
    return True


def test_without_a_mistake_all_is_read() -> None:
    assert all(is_read(stream_reference, vector) for vector in VECTORS)


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_noticed(mistake: tuple[str, str]) -> None:
    module = decoder_with(mistake)
    assert not all(is_read(module, vector) for vector in VECTORS)
