"""Faults between the subject and the gateway: the proxy's work."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from benchmarks.faults.gateway import UPDATING_BARS
from benchmarks.faults.subject import RECONNECTION
from benchmarks.faults.world import Scenario, World
from ibfast.config import HeartbeatConfig
from ibfast.sim.proxy import Corruption, Direction

OUTAGE_S = 1.0
BUSY_FRAMES = 20
SLOW_BYTES_PER_S = 4.0
SLOW_LINK_BYTES_PER_S = 1500.0
CLOSED = 3
NEVER_S = 600.0
WEB_PAGE = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def refused(world: World) -> None:
    world.fault()
    world.proxy.refuse()
    world.proxy.reset()
    await world.noticed()
    await asyncio.sleep(OUTAGE_S)
    await world.proxy.serve()
    world.healed()


async def black_hole(world: World) -> None:
    world.fault()
    before = world.proxy.accepted
    world.proxy.black_hole()
    world.proxy.reset()
    await world.until(lambda: world.proxy.accepted > before + 1, "it did not try again out of the black hole")
    await world.proxy.serve()
    world.healed()


async def half_open(world: World) -> None:
    world.fault()
    world.proxy.freeze()
    world.healed()
    await world.noticed()
    await world.until(lambda: world.proxy.accepted > 1, "it did not connect again")
    await world.recovered()
    world.proxy.thaw()  # now the gateway learns that the old connection is gone, and frees its id
    await world.until(lambda: len(world.gateway.sessions) == 1, "the old session is still open")


async def mute_socket(world: World) -> None:
    world.fault()
    world.proxy.freeze(Direction.TO_CLIENT)
    world.healed()
    await world.noticed()


async def reset_in_frame(world: World) -> None:
    world.fault()
    world.proxy.reset(after_frames=BUSY_FRAMES, after_bytes=6)
    await world.noticed()
    world.healed()


async def cut(world: World) -> None:
    world.fault()
    world.proxy.cut()
    world.healed()


async def reset_in_handshake(world: World) -> None:
    world.fault()
    before = world.proxy.accepted
    world.proxy.reset(after_bytes=5, upcoming=1)
    world.proxy.reset()
    await world.until(lambda: world.proxy.accepted > before + 1, "it did not try again")
    world.healed()


async def slow_loris(world: World) -> None:
    world.fault()
    before = world.proxy.accepted
    world.proxy.trickle(SLOW_BYTES_PER_S, upcoming=1)
    world.proxy.reset()
    await world.until(lambda: world.proxy.accepted > before + 1, "it waited for the slow handshake for ever")
    world.healed()


async def accepted_and_closed(world: World) -> None:
    """Accept connections and close them at once, as a gateway does that is slow to start."""
    world.fault()
    before = world.proxy.accepted
    world.proxy.cut(upcoming=CLOSED)
    world.proxy.reset()
    await world.until(lambda: world.proxy.accepted > before + CLOSED, "it did not try again")
    world.healed()


async def slow_link(world: World) -> None:
    """Let fewer bytes pass than the gateway sends, until that is reported: data grows old, and goes on."""
    counts = world.subject.manager.monitor.counts
    world.fault()
    world.proxy.trickle(SLOW_LINK_BYTES_PER_S)
    await world.until(lambda: counts["link_slow"], "the slow link was not reported")
    world.expect(world.subject.reasons(), "the health is good on a slow link")
    await world.proxy.serve()
    world.healed()
    await world.until(lambda: counts["link_recovered"], "it was not reported that the link is fast again")
    world.expect(not counts["connection_lost"], "the slow link was given up")


async def bars_at_reconnect(world: World) -> None:
    """Ask for bars that update while there is no connection."""
    world.fault()
    world.proxy.refuse()
    world.proxy.reset()
    await world.noticed()
    bars = asyncio.create_task(world.declare(UPDATING_BARS))
    await asyncio.sleep(OUTAGE_S)
    await world.proxy.serve()
    world.healed()
    await bars
    world.expect(world.subject.history_bars(UPDATING_BARS.name), "the bars came without their history")


async def wrong_server(world: World) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1024)
            writer.write(WEB_PAGE)
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    world.fault()
    before = world.proxy.accepted
    world.proxy.target_port = server.sockets[0].getsockname()[1]
    world.proxy.reset()
    await world.until(lambda: world.proxy.accepted > before, "it did not try again")
    await asyncio.sleep(OUTAGE_S)
    world.proxy.target_port = world.gateway.port
    world.healed()
    server.close()


async def wrong_length(world: World) -> None:
    world.fault()
    world.proxy.corrupt(Corruption.WRONG_LENGTH)
    world.healed()
    await world.noticed()


async def impossible_length(world: World) -> None:
    world.fault()
    world.proxy.corrupt(Corruption.IMPOSSIBLE_LENGTH)
    world.healed()
    await world.noticed()


async def garbage(world: World) -> None:
    world.fault()
    world.proxy.corrupt(Corruption.GARBAGE, after_frames=BUSY_FRAMES)
    world.healed()
    await world.noticed()


async def congestion(world: World) -> None:
    world.fault()
    world.proxy.delay(0.2)
    await asyncio.sleep(3 * OUTAGE_S)
    await world.proxy.serve()
    world.healed()


# With it, nothing shorter than the limit of a scenario helps a gateway that is taken for one without a login.
_NO_LOGIN_POLL = replace(RECONNECTION, login_poll_s=NEVER_S)

SCENARIOS = (
    Scenario("refused", "connection reset, and refused for a second", refused, quick=True),
    Scenario("black hole", "connections are accepted and nothing answers", black_hole),
    Scenario("half open", "nothing passes in either direction, TCP stays up", half_open),
    Scenario("mute socket", "nothing comes any more, TCP stays up", mute_socket),
    Scenario("reset in frame", "connection reset in the middle of a message", reset_in_frame, quick=True),
    Scenario("cut", "connection closed in good order", cut),
    Scenario("reset in handshake", "the next connection is reset after 5 bytes", reset_in_handshake),
    Scenario("slow loris", "the next handshake comes at 4 bytes a second", slow_loris),
    Scenario("accepted, closed", f"the next {CLOSED} connections are closed at once", accepted_and_closed,
             settings={"reconnection": _NO_LOGIN_POLL}),
    Scenario("slow link", f"a live connection passes {SLOW_LINK_BYTES_PER_S:,.0f} bytes a second", slow_link,
             settings={"heartbeat": HeartbeatConfig(interval_s=0.5, timeout_s=20.0)}),
    Scenario("bars at reconnect", "bars that update are asked for without a connection", bars_at_reconnect),
    Scenario("wrong server", "a web server listens at the port for a second", wrong_server),
    Scenario("wrong length", "a frame's length is 512 off", wrong_length),
    Scenario("impossible length", "a frame's length is beyond all bounds", impossible_length, quick=True),
    Scenario("garbage", f"random bytes after {BUSY_FRAMES} frames", garbage, quick=True),
    Scenario("congestion", "everything comes 0.2 s late for three seconds", congestion, noticed=False),
)  # fmt: skip
