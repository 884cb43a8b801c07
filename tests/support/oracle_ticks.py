"""What an official client makes of tick-path messages. Runs in the environment of that client, not in ours.

The rule of the file: only the standard library and `ibapi`. Each line of standard input is an object with
`server_version` and `payloads`, in hex. The `answer` is a list: for every payload the list of wrapper calls, each the
method's name and its arguments (decimals as text), or [["raised", type name]] where the client's decoder gave up.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ibapi import comm
from ibapi.decoder import Decoder
from ibapi.wrapper import EWrapper

try:
    from ibapi.common import PROTOBUF_MSG_ID
except ImportError:  # 9.81.1 knows text alone
    PROTOBUF_MSG_ID = 0

RAW_ID_SINCE = 201


class Recorder(EWrapper):
    """Keeps the calls that the decoder makes, with attribute objects as bit masks."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def tickPrice(self, reqId, tickType, price, attrib):  # noqa: N802, N803 - the official names
        mask = attrib.canAutoExecute | attrib.pastLimit << 1 | attrib.preOpen << 2
        self.calls.append(("tickPrice", reqId, tickType, price, mask))

    def updateMktDepth(self, *args):  # noqa: N802
        self.calls.append(("updateMktDepth", *args))

    def updateMktDepthL2(self, *args):  # noqa: N802
        self.calls.append(("updateMktDepthL2", *args))

    def tickOptionComputation(self, *args):  # noqa: N802
        self.calls.append(("tickOptionComputation", *args))

    def realtimeBar(self, *args):  # noqa: N802
        self.calls.append(("realtimeBar", *args))

    def historicalDataUpdate(self, reqId, bar):  # noqa: N802, N803
        wap = bar.wap if hasattr(bar, "wap") else bar.average
        self.calls.append(
            (
                "historicalDataUpdate",
                reqId,
                bar.date,
                bar.open,
                bar.high,
                bar.low,
                bar.close,
                bar.volume,
                wap,
                bar.barCount,
            )
        )

    def tickByTickAllLast(self, reqId, tickType, time, price, size, attrib, exchange, conditions):  # noqa: N802, N803
        mask = attrib.pastLimit | attrib.unreported << 1
        self.calls.append(("tickByTickAllLast", reqId, tickType, time, price, size, mask, exchange, conditions))

    def tickByTickBidAsk(self, reqId, time, bid, ask, bid_size, ask_size, attrib):  # noqa: N802, N803
        mask = attrib.bidPastLow | attrib.askPastHigh << 1
        self.calls.append(("tickByTickBidAsk", reqId, time, bid, ask, bid_size, ask_size, mask))

    def tickByTickMidPoint(self, *args):  # noqa: N802
        self.calls.append(("tickByTickMidPoint", *args))


def _record(name: str) -> None:
    """Override a method whose signature the decoder reads from the base class."""

    def method(self: Recorder, *args: Any) -> None:
        self.calls.append((name, *args))

    setattr(Recorder, name, method)


for _name in ("tickSize", "tickGeneric", "tickString"):
    _record(_name)


def interpret(decoder: Decoder, server_version: int, payload: bytes) -> None:
    """Hand a payload to the decoder as the client's message loop does."""
    if not PROTOBUF_MSG_ID:
        decoder.interpret(comm.read_fields(payload))
        return
    if server_version >= RAW_ID_SINCE:
        msg_id, body = int.from_bytes(payload[:4], "big"), payload[4:]
    else:
        head, _, body = payload.partition(b"\0")
        msg_id = int(head)
    if msg_id > PROTOBUF_MSG_ID:
        decoder.processProtoBuf(body, msg_id - PROTOBUF_MSG_ID)
    else:
        decoder.interpret(comm.read_fields(body), msg_id)


def answer(server_version: int, payloads: list[bytes]) -> list[list[tuple[Any, ...]]]:
    """Return the calls of each payload."""
    recorder = Recorder()
    decoder = Decoder(recorder, server_version)
    answers = []
    for payload in payloads:
        recorder.calls = []
        try:
            interpret(decoder, server_version, payload)
        except Exception as error:  # whatever the client's decoder raises is its answer
            recorder.calls = [("raised", type(error).__name__)]
        answers.append(recorder.calls)
    return answers


if __name__ == "__main__":
    for line in sys.stdin:
        question = json.loads(line)
        payloads = [bytes.fromhex(payload) for payload in question["payloads"]]
        print(json.dumps({"answer": answer(question["server_version"], payloads)}, default=str), flush=True)
