"""Recorded frames reach a client untouched, in order and in time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ibfast.contracts import Stock
from ibfast.errors import ConfigError
from ibfast.sim.recording import RecordedGateway, read_recording
from ibfast.wire import request_bytes, requests

TIMEOUT_S = 20
HANDSHAKES = {178: b"178\x0020260710 15:47:21 CET\0", 226: b"226\x0020260710 15:47:21 CET\0"}


def row(payload: bytes, direction: str = "in", **more: Any) -> dict[str, Any]:
    return {"direction": direction, "payload_hex": payload.hex(), "encoding": "text"} | more


def recording(server_version: int) -> list[dict[str, Any]]:
    return [
        row(HANDSHAKES[server_version], encoding="handshake"),
        row(b"first"),
        row(b"", "out", msg_id=1),
        row(b"second"),
        row(b"\0\xff" * 3),
        row(b"", "out", msg_id=None),
        row(b"third"),
    ]


async def receive(gateway: RecordedGateway, asked: list[bytes], frames: int) -> list[bytes]:
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
        writer.write(request_bytes.hello(157, 226))
        for payload in asked:
            writer.write(request_bytes.frame(payload))
        received = []
        for _ in range(frames):
            length = int.from_bytes(await reader.readexactly(4), "big")
            received.append(await reader.readexactly(length))
        writer.close()
        return received


@pytest.mark.parametrize("server_version", [178, 226])
def test_frames_come_untouched_when_they_were_asked_for(server_version: int) -> None:
    asked = [
        request_bytes.encode(request, server_version)
        for request in (requests.StartApi(1), requests.CurrentTimeRequest(), requests.MarketData(1, Stock("AAPL")))
    ]

    async def main() -> list[bytes]:
        async with RecordedGateway(recording(server_version)) as gateway:
            return await receive(gateway, asked, 5)

    frames = asyncio.run(main())
    assert frames == [HANDSHAKES[server_version], b"first", b"second", b"\0\xff" * 3, b"third"]


def test_it_waits_for_the_request() -> None:
    async def main() -> None:
        async with RecordedGateway(recording(226)) as gateway:
            reader, writer = await asyncio.open_connection(gateway.host, gateway.port)
            writer.write(request_bytes.hello(157, 226))
            start = 4 + len(HANDSHAKES[226]) + 4 + len(b"first")
            await reader.readexactly(start)
            assert not gateway.finished.is_set()
            writer.write(request_bytes.frame(request_bytes.encode(requests.MarketData(1, Stock("AAPL")), 226)))
            async with asyncio.timeout(TIMEOUT_S):
                await gateway.finished.wait()
            writer.close()

    asyncio.run(main())


def test_it_need_not_wait() -> None:
    async def main() -> list[bytes]:
        async with RecordedGateway(recording(226), waits=False) as gateway:
            return await receive(gateway, [], 5)

    assert asyncio.run(main())[-1] == b"third"


def test_several_clients_see_the_same() -> None:
    async def main() -> list[list[bytes]]:
        async with RecordedGateway(recording(226), waits=False) as gateway:
            return await asyncio.gather(*(receive(gateway, [], 5) for _ in range(3)))

    first, second, third = asyncio.run(main())
    assert first == second == third


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_frames_keep_their_distance(monkeypatch: pytest.MonkeyPatch, speed: float) -> None:
    rows = [row(HANDSHAKES[226], encoding="handshake"), row(b"late", offset_s=600.0), row(b"later", offset_s=1200.0)]
    delays_s: list[float] = []
    sleep = asyncio.sleep

    async def note(delay_s: float) -> None:
        delays_s.append(delay_s)
        await sleep(0)

    async def main() -> None:
        async with RecordedGateway(rows, speed=speed, waits=False) as gateway:
            assert await receive(gateway, [], 3) == [HANDSHAKES[226], b"late", b"later"]

    monkeypatch.setattr(asyncio, "sleep", note)
    asyncio.run(main())
    # What was asked for is less by the time that the test has taken.
    assert [round(delay_s * speed, -2) for delay_s in delays_s] == [600, 1200]


def test_no_times_mean_no_waiting() -> None:
    rows = [row(HANDSHAKES[226], encoding="handshake"), row(b"late", offset_s=1e9)]

    async def main() -> list[bytes]:
        async with RecordedGateway(rows, speed=0, waits=False) as gateway:
            return await receive(gateway, [], 2)

    assert asyncio.run(main())[-1] == b"late"


def test_a_client_may_hang_up_at_any_time() -> None:
    async def main() -> None:
        async with RecordedGateway(recording(226)) as gateway:
            for data in (b"", b"API", request_bytes.hello(157, 226)):
                _, writer = await asyncio.open_connection(gateway.host, gateway.port)
                writer.write(data)
                writer.close()
                await writer.wait_closed()

    asyncio.run(main())


def test_sessions_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    rows = [row(b"a", session="x"), row(b"b", session="y"), row(b"c", session="x"), row(b"d")]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_recording(path) == {"x": [rows[0], rows[2]], "y": [rows[1]], "": [rows[3]]}


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"payload_hex": "0"}', '{"payload_hex": 5}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "recording.jsonl"
    path.write_text(json.dumps(row(b"a")) + "\n" + line)
    with pytest.raises(ConfigError, match="line 2"):
        read_recording(path)


@pytest.mark.parametrize("rows", [[], [row(b"first")]])
def test_a_recording_begins_with_a_handshake(rows: list[Any]) -> None:
    with pytest.raises(ConfigError, match="handshake"):
        RecordedGateway(rows)
