"""Write fuzz/corpus: one input for each message of the tick path and each dialect, from the embedded gateway's codec;
and fuzz/frames_corpus, from the messages of the stream protocol in tests/support/vectors.

python -m fuzz.make_corpus
"""

from __future__ import annotations

from pathlib import Path

from fuzz import frames_target
from fuzz.target import input_of
from ibfast.sim.codec import (
    DepthL2,
    DepthUpdate,
    HistoricalDataUpdate,
    RealTimeBar,
    Tick,
    TickByTickBidAsk,
    TickByTickLast,
    TickByTickMidPoint,
    TickGeneric,
    TickOption,
    TickPrice,
    TickSize,
    TickString,
    encode,
)

CORPUS = Path(__file__).with_name("corpus")
FRAMES_CORPUS = Path(__file__).with_name("frames_corpus")
VERSIONS = (176, 201, 226)

MESSAGES: dict[str, list[Tick]] = {
    "tick_price": [TickPrice(1, 1, 189.25, "300", 1), TickPrice(1, 2, 189.27, "0.5"), TickPrice(1, 4, 189.26, "100")],
    "tick_size": [TickSize(1, 0, "300"), TickSize(1, 5, "100"), TickSize(1, 8, "123456")],
    "tick_generic": [TickGeneric(1, 49, 0.0), TickGeneric(1, 24, 0.2345)],
    "tick_string": [
        TickString(1, 45, "1700000000"),
        TickString(1, 84, "NQZ"),
        TickString(1, 48, "701.28;1;1348075471534;67854;701.46918464;true"),
    ],
    "tick_option": [
        TickOption(1, 13, 0, 0.25, 0.5, 1.5, 0.1, 0.01, 0.2, -0.3, 189.25),
        TickOption(1, 10, 1, -1.0, -2.0),
    ],
    "depth": [DepthUpdate(1, 0, 0, 1, 189.25, "300"), DepthUpdate(1, 3, 2, 0, 0.0, "0")],
    "depth_l2": [DepthL2(1, 0, 1, 0, 189.27, "200", "ARCA", True)],
    "bars": [
        RealTimeBar(1, 1_700_000_000, 1.0, 2.0, 0.5, 1.5, "1000", "1.25", 7),
        HistoricalDataUpdate(1, 7, "1700000000", 1.0, 2.0, 0.5, 1.5, "1.25", "1000"),
    ],
    "bar_dates": [
        HistoricalDataUpdate(1, 7, date, 1.0, 2.0, 0.5, 1.5, "1.25", "1000")
        for date in ("20240105", "20240105 09:30:00", "20240105 09:30:00 US/Eastern")
    ],
    "tick_by_tick": [
        TickByTickLast(1, 1, 1_700_000_000, 189.26, "100", 2, "ISLAND", " F I"),
        TickByTickBidAsk(1, 1_700_000_000, 189.25, 189.27, "300", "200", 3),
        TickByTickMidPoint(1, 1_700_000_000, 189.26),
    ],
    "unset": [
        TickPrice(1, 1, None, None),
        TickSize(1, 0, "9223372036854775807"),
        TickGeneric(1, 49, 1.7976931348623157e308),
    ],
    "numbers": [
        TickSize(1, 8, text) for text in ("-1553556175", "0.00000001", "1E+3", "12345678901234567890", "4.9E-324")
    ],
}


def main() -> None:
    """Write the corpora anew."""
    CORPUS.mkdir(exist_ok=True)
    for name, messages in MESSAGES.items():
        for server_version in VERSIONS:
            payloads = [encode(message, server_version) for message in messages]
            (CORPUS / f"{name}_{server_version}").write_bytes(input_of(server_version, 1, payloads))
    FRAMES_CORPUS.mkdir(exist_ok=True)
    for name in frames_target.VECTORS:
        (FRAMES_CORPUS / name).write_bytes(frames_target.input_of(name))


if __name__ == "__main__":
    main()
