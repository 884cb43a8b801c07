"""The bandwidth benchmark runs on any file of ticks, and its comparison notices what is not as it was sent."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import bandwidth
from benchmarks.bandwidth.formats import Dbn, Deflated, Json, header_bytes
from benchmarks.bandwidth.ours import MismatchError, Server, compare, messages, specs
from benchmarks.bandwidth.sizes import measured_sizes, said
from benchmarks.bandwidth.ticks import FAMILIES, START_NS, TickSet, from_file, synthetic, tick_set
from ibfast.codec._frame_decoder import Decoded, FrameDecoder

ROOT = Path(__file__).parents[2]
MS = 1_000_000
HEADER = "ts_ns,symbol,kind,price,size,bid,ask,bid_size,ask_size"
FORMATS = {"JSON", "JSON, permessage-deflate", "msgpack", "DBN", "DBN, zstd", "ibfast", "ibfast, nothing known"}


def tick_file(path: Path, count: int = 1_500) -> Path:
    """Write a file of ticks of three symbols: sizes off every grid, empty fields, several ticks at one time."""
    rng = random.Random(5)
    time_ns, lines = START_NS + 7, [HEADER]
    for _ in range(count):
        time_ns += rng.choice((0, 1, 400, 90_000, 3 * MS))
        symbol = rng.choice(("A", "B B", "Ç"))
        if rng.random() < 0.3:
            lines.append(f"{time_ns},{symbol},T,{rng.randrange(900, 1100) / 100},{rng.choice((1, 0.125, 3e-7))},,,,")
        else:
            ask = rng.choice(("", "10.07", "10.0725"))
            lines.append(f"{time_ns},{symbol},Q,,,{rng.randrange(900, 1000) / 100},{ask},{rng.randrange(9)},7.5")
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "bandwidth", *arguments], cwd=ROOT, text=True, capture_output=True
    )


def test_every_format_is_measured_and_verified(tmp_path: Path) -> None:
    result = command("--quick", "--json", "--ticks", str(tick_file(tmp_path / "ticks.csv.gz")))
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    groups = {size["group"] for size in found["sizes"]}
    assert len(groups) == 3
    assert {(size["group"], size["format"], size["mode"], size["window_ms"]) for size in found["sizes"]} == {
        (group, name, mode, window_ms)
        for group in groups
        for name in FORMATS
        for mode in ("live", "conflated")
        for window_ms in bandwidth.QUICK_WINDOWS_MS
    }
    for size in found["sizes"]:
        assert size["verified"], size
        assert size["bytes_per_tick"] == round(size["nbytes"] / size["ticks"], 3) > 0
    for speed in found["speeds"]:
        assert 0 < speed["encode_ns"] <= speed["encode_median_ns"]
        assert 0 < speed["decode_ns"] <= speed["decode_median_ns"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("nothing", "column"), (f"{HEADER}\n2,A,T,1,1,,,,\n1,A,T,1,1,,,,\n", "not smaller than the one before")],
)
def test_a_file_that_is_none_of_ticks_is_said(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    result = command("--quick", "--ticks", str(tmp_path / "bad.csv"))
    assert result.returncode == 1
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_windows_and_conflation_are_what_they_say() -> None:
    nan = float("nan")
    ticks = tick_set(
        "",
        2,
        [
            (START_NS, 0, 1.0, 2.0, 3.0, 4.0),
            (START_NS + 1, 1, 5.0, 1.0),
            (START_NS + 2, 0, 1.0, 2.0, nan, 4.0),
            (START_NS + 9 * MS, 1, 6.0, 1.0),
            (START_NS + 10 * MS, 1, 7.0, 1.0),
        ],
    )
    assert [{family: rows["seq"].tolist() for family, rows in window.items()} for window in ticks.windows(10 * MS)] == [
        {"quotes": [1, 3], "trades": [2, 4]},
        {"trades": [5]},
    ]
    assert [rows["seq"].tolist() for rows in ticks.conflated(10 * MS).rows.values()] == [[3], [4, 5]]
    assert ticks.events(ticks.windows(10 * MS)[0])[:3] == [
        (False, 0, START_NS // 1000, 1.0, 2.0, 3.0, 4.0),
        (True, 1, START_NS // 1000, 5.0, 1.0),
        (False, 0, START_NS // 1000, 1.0, 2.0, None, 4.0),
    ]
    assert [len(part) for part in ticks.split(2)] == [2, 3]
    assert ticks.sizes == [1.0, 3.0, 4.0]


def test_the_stream_is_seeded_and_like_stocks() -> None:
    ticks = synthetic(20, 2_000, 5.0)
    for family in FAMILIES:
        assert ticks.rows[family].tolist() == synthetic(20, 2_000, 5.0).rows[family].tolist()
    assert ticks.rows["quotes"].tolist() != synthetic(20, 2_000, 5.0, seed=2).rows["quotes"].tolist()
    quotes, trades = ticks.rows["quotes"], ticks.rows["trades"]
    assert len(ticks) == pytest.approx(10_000, rel=0.1)
    assert len(trades) / len(ticks) == pytest.approx(0.2, abs=0.03)
    assert set(ticks.rows["trades"]["instrument"].tolist()) == set(range(20))
    assert (quotes["ask"] > quotes["bid"]).all()
    one = quotes[quotes["instrument"] == 3]
    moves = np.mean(one["bid"][1:] != one["bid"][:-1])
    assert 0.005 < moves < 0.25
    assert np.mean(one["bid_size"][1:] != one["bid_size"][:-1]) == pytest.approx(0.55, abs=0.1)


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(f"{HEADER}\n5,X,Q,,,1.5,,2,3\n5,Y,T,0.1,0.25,,,,\n6,X,Q,,,1.5,1.6,2,3\n")
    ticks = from_file(path)
    assert ticks.instruments == 2
    assert ticks.rows["quotes"]["recv_ns"].tolist() == [5, 6]
    assert ticks.rows["quotes"]["seq"].tolist() == [1, 3]
    assert np.isnan(ticks.rows["quotes"]["ask"][0])
    assert ticks.rows["trades"][["recv_ns", "instrument", "price", "size"]].tolist() == [(5, 1, 0.1, 0.25)]


# ---- what is not as it was sent is noticed


def decoded(ticks: TickSet, span_ns: int, *, is_conflated: bool = False) -> list[list[Decoded]]:
    past, news = ticks.split(len(ticks) // 10)
    server = Server(specs(past, span_ns, is_conflated=is_conflated), past, list(range(ticks.instruments)))
    subscriber: FrameDecoder = server.subscriber()
    frames = [server.publish(rows) for rows in news.windows(span_ns)]
    return [[subscriber.decode(message) for message in messages(window)] for window in frames]


def altered(ticks: TickSet, family: str, row: int, name: str, value: Any) -> TickSet:
    rows: NDArray[Any] = ticks.rows[family].copy()
    rows[name][row] = value
    return TickSet(ticks.name, ticks.instruments, {**ticks.rows, family: rows})


@pytest.mark.parametrize("span_ns", [0, 10 * MS])
def test_a_subscriber_of_other_ticks_is_noticed(span_ns: int) -> None:
    ticks = synthetic(10, 2_000, 0.5)
    _, news = ticks.split(len(ticks) // 10)
    said_to_it = decoded(ticks, span_ns)
    compare(news, span_ns, said_to_it)
    quotes = news.rows["quotes"]
    last_bits = np.nextafter(quotes["ask"][40], 0)
    others = [
        altered(news, "quotes", 40, "ask", last_bits),
        altered(news, "quotes", 40, "instrument", (quotes["instrument"][40] + 1) % 10),
        altered(news, "trades", 7, "recv_ns", news.rows["trades"]["recv_ns"][7] + 1_000),
        altered(news, "quotes", 40, "kind", 3),
        news.of(list(range(9))),
        news.conflated(100 * MS),
    ]
    for other in others:
        with pytest.raises(MismatchError):
            compare(other, span_ns, said_to_it)
    for wrong in (said_to_it[:-1], [*said_to_it[1:], said_to_it[0]]):
        with pytest.raises(MismatchError):
            compare(news, span_ns, wrong)


def test_quotes_and_trades_in_another_order_are_noticed() -> None:
    ticks = tick_set("", 1, [(START_NS, 0, 1.0, 2.0, 3.0, 4.0), (START_NS, 0, 1.0, 5.0), (START_NS, 0, 2.0, 5.0)])
    server = Server(specs(ticks.split(0)[0], 10 * MS, is_conflated=False), ticks.split(0)[0], [0])
    subscriber = server.subscriber()
    window = [subscriber.decode(message) for message in messages(server.publish(ticks.rows))]
    compare(ticks, 10 * MS, [window])
    quotes, trades = (rows.copy() for rows in ticks.rows.values())
    quotes["seq"], trades["seq"] = [2], [1, 3]
    with pytest.raises(MismatchError, match="another order"):
        compare(TickSet("", 1, {"quotes": quotes, "trades": trades}), 10 * MS, [window])


def test_conflation_that_leaves_too_much_is_noticed() -> None:
    ticks = synthetic(10, 2_000, 0.5)
    _, news = ticks.split(len(ticks) // 10)
    compare(news.conflated(100 * MS), 100 * MS, decoded(ticks, 100 * MS, is_conflated=True))
    with pytest.raises(MismatchError):
        compare(news.conflated(100 * MS), 100 * MS, decoded(ticks, 100 * MS))


def test_a_subscriber_of_some_gets_these() -> None:
    stream = synthetic(30, 2_000, 0.5)
    for size in measured_sizes(bandwidth.group(stream, [0, 3, 17, 29]), 10):
        assert size.verified
        assert size.ticks < len(stream) / 5


def test_other_formats_are_decoded_too() -> None:
    class Forgetful(Json):
        def encode(self, native: Any) -> bytes:
            return super().encode(native[:-1])

    windows = [[(True, 1, 5, 2.5, None)], [(False, 1, 6, 2.5, 2.75, 1.0, 1.0)]]
    assert said(Forgetful(), windows) == (8, False)
    assert said(Json(), windows)[1]
    deflated, plain = said(Deflated(), windows * 20), said(Json(), windows * 20)
    assert deflated[1]
    assert deflated[0] < plain[0] / 2


def test_rows_of_dbn_have_its_sizes() -> None:
    dbn = Dbn([1.0, 2.5, 0.125])
    assert [len(dbn.encode(dbn.native([event]))) for event in (
        (True, 1, 5, 2.5, 0.125), (False, 1, 6, 2.5, None, 1.0, 2.5)
    )] == [48, 80]  # fmt: skip
    assert dbn.native([(True, 1, 5, 2.5, 0.125)])[0][5:7] == (2_500_000_000, 125)
    assert Dbn([5e9, 0.5]).native([(True, 1, 5, 1.0, 5e9)])[0][6] == 500_000_000


@pytest.mark.parametrize(("nbytes", "header"), [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_headers_are_counted(nbytes: int, header: int) -> None:
    assert header_bytes(bytes(nbytes)) == header


@pytest.mark.parametrize("frames", [b"\x02\x01a", b"\x82\x02a", b"\x82\x7e\x00\x02a", b"\x82\x01ab"])
def test_frames_are_whole(frames: bytes) -> None:
    with pytest.raises(MismatchError):
        messages(frames)
