"""A subscriber that believes nothing: it asks for data at random, and holds every message against the truth.

The rule of the file: an honest client, however hasty or slow. It knows the protocol's page, and nothing of ibfast's
clients.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.chaos.fanout.socket_client import Manner, SocketClient
from benchmarks.chaos.fanout.tracks import Seen, Track, kinds_of
from benchmarks.chaos.fanout.truth import Truth
from benchmarks.chaos.fanout.wire import (
    CLASSES,
    BinaryWire,
    Bookmark,
    Bookmarks,
    Control,
    Form,
    JsonWire,
    Lag,
    News,
    State,
    WireError,
)
from benchmarks.chaos.judge import Problem
from ibfast.contracts import Contract

ANSWERS = {
    "subscribe": "subscribed",
    "update": "updated",
    "unsubscribe": "unsubscribed",
    "limit": "limited",
    "list": "subscriptions",
    "ping": "pong",
}


@dataclass
class Asked:
    """A request that awaits its answer; `seq` is the feed's when it was sent."""

    op: str
    values: dict[str, Any]
    seq: int
    at_s: float


@dataclass
class Claim:
    """What a client names to go on with a channel that it had.

    `is_known`: whether the server can know what that means.
    """

    seen: Seen
    bookmark: Bookmark
    is_known: bool


class Client(SocketClient):
    """One subscriber.

    Args:
        number, manner, address: see `SocketClient`.
        truth: what there was.
        contract_of: what a request for data means.
        report: takes what must not be.

    Attributes:
        tracks: by channel.
        pending: requests by id.
        closing: the code of the server's `closing`.
        may_hurry: it may be ended for being too fast.
        wrong: so many messages that are none await their errors.
        ops: how often it was told what.
    """

    def __init__(
        self,
        number: int,
        manner: Manner,
        address: tuple[str, int],
        truth: Truth,
        contract_of: Callable[[Mapping[str, Any]], Contract],
        report: Callable[[str, str], None],
    ) -> None:
        self.tracks: dict[int, Track] = {}
        self.pending: dict[int, Asked] = {}
        self.claims: dict[int, Claim] = {}
        self.closing = ""
        self.rows = 0
        self.welcome: dict[str, Any] = {}
        self.may_hurry = False
        self.wrong = 0
        self.ops: Counter[str] = Counter()
        self._truth = truth
        self._contract_of = contract_of
        self._report = report
        self._asked = 0
        self._over: set[int] = set()
        self._wire = BinaryWire() if manner.dialect == "binary" else JsonWire()
        super().__init__(number, manner, address)

    @property
    def _has_least_interval(self) -> bool:
        """Whether its token has a least interval."""
        return self.manner.token.startswith("l")

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"client {self.number} ({self.manner.dialect})"

    def problem(self, kind: str, text: str) -> None:
        """Report what must not be."""
        self._report(kind, f"{self.name}: {text}")

    # --- what it says ---

    def ask(self, op: str, **values: Any) -> int:
        """Send a request, and return its id; the answer is awaited by nobody, and judged when it comes."""
        if not self.is_open or self._socket is None or self.left:
            return 0
        self._asked += 1
        self.pending[self._asked] = Asked(op, values, self._truth.seq, time.monotonic())
        self.send(json.dumps({"op": op, "id": self._asked, **values}))
        return self._asked

    def send_wrong(self, text: str | bytes) -> None:
        """Send what is to be answered by an error; its id is "x", or none that can be read."""
        if self.is_open and not self.left:
            self.wrong += 1
            self.send(text)

    def resume(self, claim: Claim) -> None:
        """Ask for a channel that it had, from a position on."""
        number = self.ask("subscribe", **claim.seen.options, resume=claim.bookmark.as_resume())
        self.claims[number] = claim

    # --- what it hears ---

    def take(self, message: str | bytes) -> None:
        """See `SocketClient`."""
        self._truth.look()
        if self.closing:
            self.problem("after the end", f"after closing comes {str(message)[:200]}")
            return
        try:
            arrived = self._wire.read(message)
        except WireError as error:
            self.problem("wire", str(error))
            self.leave("close")
            return
        match arrived:
            case Control():
                self._take_control(arrived)
            case State() | Lag():
                track = self.tracks.get(arrived.channel)
                if track is None:
                    self.problem("after the end", f"of a channel that is not open: {str(arrived)[:200]}")
                    return
                self.rows += len(arrived.rows) if isinstance(arrived, State) else 0
                self.ops["snapshot" if isinstance(arrived, State) else f"lag {arrived.reason}"] += 1
                found = track.take_state(arrived) if isinstance(arrived, State) else track.take_lag(arrived)
                self._judge(found)
            case News():
                self.rows += sum(map(len, arrived.rows.values()))
                self._take_news(arrived)

    def _judge(self, found: Iterator[Problem]) -> None:
        for problem in found:
            if not self._truth.is_blind:
                self.problem(*problem)

    def _take_news(self, news: News) -> None:
        tracks = {number: track for number, track in sorted(self.tracks.items()) if track.cls == news.cls}
        for number in news.rows.keys() - tracks.keys():
            self.problem("after the end", f"rows of channel {number}, class {news.cls}: {news.rows[number][:2]}")
        for number, track in tracks.items():
            self._judge(track.take(news.rows.get(number, []), news.seq))

    # --- control messages ---

    def _take_control(self, control: Control) -> None:
        said, op = control.said, control.op
        if not self.welcome:
            self.welcome = said
            if op != "welcome":
                self.problem("wire", f"the first message is {said}")
            return
        self.ops[op] += 1
        asked = self._answered(said, op) if "id" in said else None
        take = getattr(self, f"_take_{op}", None)
        if take is None:
            self.problem("wire", f"an unknown message: {said}")
        else:
            take(said, asked)

    def _answered(self, said: dict[str, Any], op: str) -> Asked | None:
        number = said["id"]
        if op == "error" and number in (None, "x") and self.wrong:
            self.wrong -= 1
            return None
        asked = self.pending.pop(number, None)
        if asked is None:
            self.problem("answer", f"nobody has asked for {said}, or it was answered before")
        elif op not in ("error", ANSWERS[asked.op]):
            self.problem("answer", f"{asked.op} is answered by {said}")
        return asked

    def _take_error(self, said: dict[str, Any], asked: Asked | None) -> None:
        if "the server has failed" in said["message"]:
            self.problem("failed", f"{asked}: {said}")
        if said["code"] == "TOO_FAST" and not self._has_least_interval:
            self.problem("answer", f"whoever is too fast waits, and is not refused: {said}")

    def _take_subscribed(self, said: dict[str, Any], asked: Asked | None) -> None:
        if asked is None:
            return
        (channel,) = said["channels"]
        number = channel["channel"]
        if number in self.tracks:
            self.problem("answer", f"a number that is taken: {said}")
        track = self._track(channel, said["subscription"], asked.values, asked.seq)
        if track is None:
            return
        self.tracks[number] = track
        self._wire.open(channel)
        claim = self.claims.pop(said["id"], None)
        track.told_seq = self._truth.seq
        self.ops["resumed" if said["resumed"] else "not resumed"] += claim is not None
        if claim is None:
            if said["resumed"]:
                self.problem("resumed", f"{track.name}: what was new is said to be resumed")
        elif said["resumed"]:
            self._resumed(track, claim)
        else:
            self._not_resumed(track, claim, said)

    def _track(
        self, channel: Mapping[str, Any], subscription: int, options: dict[str, Any], since_seq: int
    ) -> Track | None:
        contract = self._contract_of(options)
        data_type, mode = options.get("data_type", "QUOTES"), options.get("mode", "stream")
        families = channel["families"]
        is_conflated = mode != "stream"
        kinds = kinds_of(data_type, contract, families, is_conflated=is_conflated)
        part = "TICKS" if data_type == "ALL" else data_type
        key = (channel["con_id"], contract.exchange or "SMART", part)
        known = self._truth.of_key.get(key, [])
        generations = [each for each in known if each.closed_seq is None or each.closed_seq >= since_seq] or known[-1:]
        if not generations:
            self.problem("answer", f"the server has never asked for {key}, and says {channel}")
            return None
        is_there = (channel["instrument"], channel["exchange"]) == (generations[-1].instrument, key[1])
        if not is_there or set(kinds) != set(families):
            self.problem("answer", f"a channel that can't be: {channel}")
        form = Form(
            self._wire.is_binary, tuple(options.get("fields", ())), 1 if options.get("times") == "ns" else 1000,
            bool(options.get("ordered")),
        )  # fmt: skip
        return Track(
            name=f"{channel['symbol']} {contract.exchange} {data_type} {mode}, subscription {subscription}",
            subscription=subscription, channel=channel["channel"], cls=channel["class"],
            form=form, kinds=kinds, is_conflated=is_conflated, generations=generations, options=options,
            bookmarks=Bookmarks.of(channel),
            interval_ms=channel["span_ns"] // 1_000_000,
        )  # fmt: skip

    def _resumed(self, track: Track, claim: Claim) -> None:
        seen, seq = claim.seen, claim.bookmark.seq
        self._truth.look()  # another process may have published more than was read from its rings
        if not claim.is_known or seq > self._truth.seq:
            self.problem("resumed", f"{track.name}: from what never was: {claim.bookmark}")
        elif seen.generation not in track.generations:
            self.problem("resumed", f"{track.name}: the server had given it up meanwhile, and says that it goes on")
        elif seq < seen.generation.opened_seq:
            self.problem("resumed", f"{track.name}: from before it was there: {claim.bookmark}")
        track.go_on(seen, seq)

    def _not_resumed(self, track: Track, claim: Claim, said: dict[str, Any]) -> None:
        seen, seq = claim.seen, claim.bookmark.seq
        if not said.get("reason"):
            self.problem("resumed", f"no reason: {said}")
        if not claim.is_known:
            track.seq, track.may_begin = 0, False
        elif seq <= self._truth.seq:
            track.seq, track.may_begin = seq, False
            is_same = track.generations == [seen.generation] and seen.generation.closed_seq is None
            track.is_unknown = not is_same
            is_there = seq >= seen.generation.opened_seq
            is_pressed = "take more" in said.get("reason", "")
            if is_same and is_there and not track.generation.has_wrapped and not is_pressed:
                self.problem("resumed", f"{track.name}: all is there, and it is not resumed: {said}")

    def _moved(self, said: dict[str, Any], **asked: Any) -> None:
        """Take in the channel of a subscription that comes at another interval from now on, as was perhaps asked."""
        for channel in said["channels"]:
            old = self.tracks.get(channel["channel"])
            if old is None or old.subscription != said["subscription"]:
                self.problem("after the end", f"of a subscription that is over: {said}")
                continue
            # Two of its snapshots may be under way: a state comes before any rows of the new channel.
            new = replace(
                old, cls=channel["class"], is_void=True, may_begin=old.may_begin and old.is_void,
                interval_ms=channel["span_ns"] // 1_000_000, options=old.options | asked,
                bookmarks=Bookmarks.of(channel), former=old.seen(),
            )  # fmt: skip
            self.tracks[channel["channel"]] = new
            self._wire.close(channel["channel"])
            self._wire.open(channel)

    def _take_updated(self, said: dict[str, Any], asked: Asked | None) -> None:
        self._moved(said, **({} if asked is None else {"interval_ms": asked.values["interval_ms"]}))

    def _take_slowed(self, said: dict[str, Any], asked: Asked | None) -> None:
        self._moved(said)

    def _take_unsubscribed(self, said: dict[str, Any], asked: Asked | None) -> None:
        self._close_subscription(said)

    def _take_ended(self, said: dict[str, Any], asked: Asked | None) -> None:
        self._close_subscription(said)

    def _close_subscription(self, said: dict[str, Any]) -> None:
        number = said["subscription"]
        if number in self._over or not any(track.subscription == number for track in self.tracks.values()):
            self.problem("after the end", f"of a subscription that is over, or never was: {said}")
        self._over.add(number)
        for channel, track in list(self.tracks.items()):
            if track.subscription == number:
                del self.tracks[channel]
                self._wire.close(channel)

    def _take_limited(self, said: dict[str, Any], asked: Asked | None) -> None:
        pass

    def _take_subscriptions(self, said: dict[str, Any], asked: Asked | None) -> None:
        listed = sorted(each["subscription"] for each in said["subscriptions"])
        known = sorted(track.subscription for track in self.tracks.values())
        if listed != known:
            self.problem("answer", f"the list has {listed}, and the client {known}")
        for each in said["subscriptions"]:
            for channel in each["channels"]:
                track = self.tracks.get(channel["channel"])
                described = (channel["epoch"], channel["class"], each["interval_ms"])
                if track is not None and described != (track.bookmarks.epoch, track.cls, track.asked_ms):
                    self.problem("answer", f"{track.name} is listed as {each}, and was described as {track.bookmarks}")

    def _take_pong(self, said: dict[str, Any], asked: Asked | None) -> None:
        if asked is not None and said.get("data") != asked.values.get("data"):
            self.problem("answer", f"{asked.values} comes back as {said}")
        self._take_heartbeat(said, asked)

    def _take_heartbeat(self, said: dict[str, Any], asked: Asked | None) -> None:
        """Everything of these classes has come up to here."""
        seqs = {position % CLASSES: position // CLASSES for position in said["positions"]}
        classes = {track.cls for track in self.tracks.values()}
        judged = {track.cls for track in self.tracks.values() if track.is_judged}
        if len(seqs) < len(said["positions"]) or not judged <= seqs.keys() <= classes:
            self.problem("answer", f"positions of the classes {sorted(classes)}, {sorted(judged)} with states: {said}")
        for track in self.tracks.values():
            if track.is_judged and track.cls in seqs:
                self._judge(track.take([], seqs[track.cls]))

    def _take_gap(self, said: dict[str, Any], asked: Asked | None) -> None:
        track = self.tracks.get(said["channel"])
        if track is None:
            self.problem("after the end", f"of a channel that is not open: {said}")
        else:
            track.gaps.append(said)

    def _take_state(self, said: dict[str, Any], asked: Asked | None) -> None:
        for track in self.tracks.values():
            if track.subscription == said["subscription"]:
                track.state = said["state"]
                return
        self.problem("after the end", f"of a subscription that is over: {said}")

    def _take_closing(self, said: dict[str, Any], asked: Asked | None) -> None:
        self.closing = str(said["code"])

    # --- what it leaves ---

    def seen(self) -> list[Seen]:
        """Return what it would go on with elsewhere."""
        return [seen for track in self.tracks.values() if (seen := track.seen()) is not None]
