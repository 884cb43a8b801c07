"""A client of either dialect that believes nothing: it holds what it is told against all that there was.

Whatever happens to a connection, each of its channels' rows must have come once and in order, or be in the range of a
lag; a state must be that of its sequence number; and what a message says of completeness must be so.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect

from ibfast.codec._frame_decoder import FrameDecoder
from ibfast.codec.positions import class_of, position_of, seq_of
from ibfast.codec.spec import ChannelSpec
from ibfast.fanout.server import FanoutServer
from tests.support.fanout_desk import Desk

WINDOW = 0x80
NEVER = 1 << 50
"""A sequence number that has not come."""


class Truth:
    """Every trade that there was, by instrument: sequence numbers and prices. To be looked at after each tick."""

    def __init__(self, desk: Desk) -> None:
        self._reader = desk.feed.trades.reader(start="next")
        self.seqs: dict[int, list[int]] = {}
        self.prices: dict[int, list[float]] = {}

    def look(self) -> None:
        for row in self._reader.read():
            self.seqs.setdefault(int(row["instrument"]), []).append(int(row["seq"]))
            self.prices.setdefault(int(row["instrument"]), []).append(float(row["price"]))

    def count(self, instrument: int, after_seq: int, up_to_seq: int) -> int:
        seqs = self.seqs.get(instrument, [])
        return max(0, bisect.bisect_right(seqs, up_to_seq) - bisect.bisect_right(seqs, after_seq))

    def next_seq(self, instrument: int, after_seq: int) -> int:
        seqs = self.seqs[instrument]
        return seqs[bisect.bisect_right(seqs, after_seq)]

    def price(self, instrument: int, seq: int) -> float | None:
        """The last price up to a number."""
        place = bisect.bisect_right(self.seqs.get(instrument, []), seq)
        return self.prices[instrument][place - 1] if place else None


@dataclass(slots=True)
class Track:
    """One channel: everything up to `seq` has come, or was told as left out; `is_void`: a state must come first.

    `options` are those to subscribe with so as to go on; `before`: so as to go on from where it was before the state
    that is to come.
    """

    subscription: int
    instrument: int
    cls: int
    is_conflated: bool
    options: dict[str, Any]
    epoch: str
    before: dict[str, Any] | None = None
    seq: int = 0
    is_void: bool = True
    empty_seq: int | None = None
    may_begin: bool = True
    may_tell_all: bool = False
    is_incomplete: bool = False


class Auditor:
    """See above.

    Attributes:
        tracks: by channel.
        ops: how often it was told what.
        listening: ends by an AssertionError when it is told what can't be.
    """

    def __init__(self, socket: ClientConnection, truth: Truth, *, is_binary: bool) -> None:
        self.socket = socket
        self.truth = truth
        self.tracks: dict[int, Track] = {}
        self.ops: Counter[str] = Counter()
        self.listening: asyncio.Task[None] | None = None
        self._is_binary = is_binary
        self._decoder = FrameDecoder()
        self._asked = 0
        self._waiting: dict[int, tuple[dict[str, Any], asyncio.Future[dict[str, Any]]]] = {}

    async def ask(self, op: str, **values: Any) -> dict[str, Any]:
        self._asked += 1
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._asked] = values, answered
        await self.socket.send(orjson.dumps({"op": op, "id": self._asked, **values}).decode())
        assert self.listening is not None
        await asyncio.wait({answered, self.listening}, return_when=asyncio.FIRST_COMPLETED)
        assert answered.done(), "it has heard something that can't be"
        return answered.result()

    async def listen(self) -> None:
        """Hear until the connection ends."""
        async for message in self.socket:
            if isinstance(message, str):
                self._take(orjson.loads(message))
            else:
                self._take_bytes(message)

    # --- messages ---

    def _take(self, said: dict[str, Any]) -> None:
        op = said["op"]
        assert not self.ops["closing"], "something follows the end"
        self.ops[op] += 1
        values: dict[str, Any] = {}
        if "id" in said:
            values, answered = self._waiting.pop(said["id"])
            answered.set_result(said)
        if op in ("subscribed", "updated", "slowed"):
            self._open(op, said, values)
        elif op in ("unsubscribed", "ended"):
            self._close(said["subscription"])
        elif op in ("heartbeat", "pong"):
            for position in said["positions"]:
                self._complete_class(class_of(position), seq_of(position))
        elif op == "data":
            for piece in said["pieces"]:
                rows = [(row["seq"], row["price"]) for row in piece["rows"]]
                self._take_rows(self.tracks[piece["channel"]], class_of(said["position"]), rows)
            self._complete_class(class_of(said["position"]), seq_of(said["position"]))
        elif op == "snapshot":
            rows = said["rows"].get("trades", [])
            assert class_of(said["position"]) == self.tracks[said["channel"]].cls
            self._take_state(said["channel"], seq_of(said["position"]), rows[0]["price"] if rows else None)
        elif op == "state":
            assert said["subscription"] in {track.subscription for track in self.tracks.values()}
        elif op == "gap":
            assert said["channel"] in self.tracks
        elif op == "lag":
            self._take_lag(said["channel"], said["reason"], said["from_seq"], said["to_seq"], said["rows"])

    def _take_bytes(self, message: bytes) -> None:
        decoded = self._decoder.decode(message)
        if decoded.lag is not None:
            self._take_lag(decoded.channel, *decoded.lag)
        elif decoded.is_snapshot:
            trades = decoded.rows.get("trades")
            self._take_state(decoded.channel, decoded.seq, None if trades is None else float(trades["price"][0]))
        elif message[0] >= WINDOW:
            trades = decoded.rows["trades"]
            for instrument in sorted(set(trades["instrument"].tolist())):
                own = trades[trades["instrument"] == instrument]
                rows = list(zip(own["seq"].tolist(), own["price"].tolist(), strict=True))
                cls = message[0] - WINDOW
                (track,) = [each for each in self.tracks.values() if each.instrument == instrument and each.cls == cls]
                self._take_rows(track, cls, rows)
            self._complete_class(message[0] - WINDOW, decoded.seq)

    # --- what they must mean ---

    def _open(self, op: str, said: dict[str, Any], asked: dict[str, Any]) -> None:
        (channel,) = said["channels"]
        number, resume = channel["channel"], asked.get("resume")
        old = self.tracks.get(number)
        if self._is_binary:
            with contextlib.suppress(ValueError):
                self._decoder.close(number)
            self._decoder.open(number, ChannelSpec.from_description(channel))
        times = {1000: "us", 1: "ns"}[channel["unit_ns"]]
        interval_ms = asked["interval_ms"] if "interval_ms" in asked or old is None else old.options["interval_ms"]
        track = Track(
            said["subscription"], channel["instrument"], channel["class"], channel["conflated"],
            {"interval_ms": interval_ms, "times": times}, channel["epoch"], None if old is None else self.seen(old),
        )  # fmt: skip
        if op == "subscribed":
            assert old is None, "a number that is taken"
            if said["resumed"]:
                assert resume is not None
                track.seq, track.is_void, track.may_begin = seq_of(resume["position"]), False, False
                track.empty_seq = track.seq if self._is_binary else None
            elif resume is not None and seq_of(resume["position"]) < NEVER:
                track.seq, track.may_begin, track.may_tell_all = seq_of(resume["position"]), False, True
        else:
            assert old is not None
            track.seq, track.may_begin = old.seq, old.may_begin and old.is_void
            track.may_tell_all = old.may_tell_all
        self.tracks[number] = track

    def _close(self, subscription: int) -> None:
        for number, track in list(self.tracks.items()):
            if track.subscription == subscription:
                del self.tracks[number]
                if self._is_binary:
                    self._decoder.close(number)

    def _take_rows(self, track: Track, cls: int, rows: list[tuple[int, float]]) -> None:
        assert not track.is_void, "rows before the state"
        assert track.cls == cls
        for seq, price in rows:
            assert seq > track.seq, "a row twice, or out of order"
            if not track.is_conflated:
                assert seq == self.truth.next_seq(track.instrument, track.seq), "a row is missing"
            assert price == self.truth.price(track.instrument, seq)
            track.seq = seq

    def _take_state(self, number: int, seq: int, price: float | None) -> None:
        track = self.tracks[number]
        if track.empty_seq is not None:
            assert (seq, price) == (track.empty_seq, None)
            track.empty_seq = None
            return
        if not track.may_begin and not track.is_conflated:
            assert not self.truth.count(track.instrument, track.seq, seq), "rows were left out in silence"
        assert seq >= track.seq
        if not track.is_incomplete or price is not None:
            assert price == self.truth.price(track.instrument, seq), "the state is another one"
        track.is_incomplete = False
        track.seq, track.is_void, track.may_begin = seq, False, False

    def _take_lag(self, number: int, reason: str, from_seq: int, to_seq: int, rows: int | None) -> None:
        track = self.tracks[number]
        assert from_seq <= to_seq
        if track.may_tell_all and from_seq == 0:
            track.seq = 0
        if not track.may_begin:
            assert from_seq >= track.seq, "what has come is told as left out"
            if not track.is_conflated:
                assert not self.truth.count(track.instrument, track.seq, from_seq), "a lag begins too late"
        if rows is not None:
            assert rows == self.truth.count(track.instrument, from_seq, to_seq), "a lag that can't count"
        track.seq, track.is_void, track.may_begin, track.before, track.may_tell_all = to_seq, True, False, None, False
        track.is_incomplete = reason == "incomplete"
        self.ops[reason] += 1

    def _complete_class(self, cls: int, seq: int) -> None:
        for track in self.tracks.values():
            if track.cls == cls:
                self._complete(track, seq)

    def _complete(self, track: Track, seq: int) -> None:
        if not track.is_void and track.empty_seq is None and not track.is_conflated:
            assert not self.truth.count(track.instrument, track.seq, seq), "not everything has come up to here"

    def seen(self, track: Track) -> dict[str, Any] | None:
        """What a client names that goes on elsewhere; None: it has nothing to go on from."""
        if track.is_void:
            return track.before
        return track.options | {"resume": {"epoch": track.epoch, "position": position_of(track.seq, track.cls)}}


@contextlib.asynccontextmanager
async def auditing(server: FanoutServer, truth: Truth, dialect: str) -> AsyncIterator[Auditor]:
    """An auditor that listens."""
    host, port = server.address
    async with connect(
        f"ws://{host}:{port}/stream",
        compression=None,
        subprotocols=[f"ibfast.v1.{dialect}"],  # type: ignore[list-item]
    ) as socket:
        auditor = Auditor(socket, truth, is_binary=dialect == "binary")
        auditor.listening = asyncio.create_task(auditor.listen())
        try:
            yield auditor
        finally:
            await socket.close()
            await auditor.listening
