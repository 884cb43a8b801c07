"""Everything that goes wrong in a soak: one function a fault, from its injection to its end.

The rule of the file: it acts and does not judge; what it begins it ends, unless the next thing a client does ends it.
A function returns False if there was nothing to hit.
Refusals for want of lines (101, 10190) are left out: what they teach is believed for minutes, and takes load away.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from benchmarks.soak.rig import Rig
from ibfast.sim.proxy import Corruption, Direction

PAUSE_S = (1.0, 7.0)
OUTAGE_S = (0.3, 3.0)
LONG_OUTAGE_S = (5.0, 8.0)
"""Longer than the heartbeat of the subject waits."""
BLOCK_S = (0.2, 1.0)
FRAMES = 50
SLOW_BYTES_PER_S, SLOW_HANDSHAKE_BYTES_PER_S = 300_000.0, 4.0
DELAY_S = 0.1
READ_INTERVAL_S = 0.3
FLOOD_S = 1.0
MOST_CHOICES = 1 << 16

Fault = Callable[[Rig], Awaitable[object]]


async def _outage(rig: Rig, bounds_s: tuple[float, float] = OUTAGE_S) -> None:
    await asyncio.sleep(rig.random.uniform(*bounds_s))


async def _on_one(rig: Rig, verb: str) -> bool:
    return bool(await rig.gateway.ask(verb, index=rig.random.randrange(MOST_CHOICES)))


async def reset(rig: Rig) -> None:
    rig.proxy.reset(after_frames=rig.random.randrange(FRAMES), after_bytes=6)


async def cut(rig: Rig) -> None:
    rig.proxy.cut()


async def refused(rig: Rig) -> None:
    rig.proxy.refuse()
    rig.proxy.reset()
    await _outage(rig)
    await rig.proxy.serve()


async def black_hole(rig: Rig) -> None:
    rig.proxy.black_hole()
    rig.proxy.reset()
    await _outage(rig)
    await rig.proxy.serve()
    rig.proxy.reset()  # what has come in meanwhile would be held for ever


async def frozen(rig: Rig) -> None:
    rig.proxy.freeze(Direction.TO_CLIENT)
    await _outage(rig)
    rig.proxy.thaw()


async def half_open(rig: Rig) -> None:
    rig.proxy.freeze()
    await _outage(rig, LONG_OUTAGE_S)
    rig.proxy.thaw()


async def trickle(rig: Rig) -> None:
    rig.proxy.trickle(SLOW_BYTES_PER_S)
    await _outage(rig)
    await rig.proxy.serve()


async def congestion(rig: Rig) -> None:
    rig.proxy.delay(DELAY_S)
    await _outage(rig)
    await rig.proxy.serve()


async def garbage(rig: Rig) -> None:
    rig.proxy.corrupt(Corruption.GARBAGE, after_frames=rig.random.randrange(FRAMES))


async def wrong_length(rig: Rig) -> None:
    rig.proxy.corrupt(Corruption.WRONG_LENGTH, after_frames=rig.random.randrange(FRAMES))


async def impossible_length(rig: Rig) -> None:
    rig.proxy.corrupt(Corruption.IMPOSSIBLE_LENGTH, after_frames=rig.random.randrange(FRAMES))


async def reset_in_handshake(rig: Rig) -> None:
    rig.proxy.reset(after_bytes=5, upcoming=1)
    rig.proxy.reset()


async def slow_handshake(rig: Rig) -> None:
    rig.proxy.trickle(SLOW_HANDSHAKE_BYTES_PER_S, upcoming=1)
    rig.proxy.reset()


async def data_lost(rig: Rig) -> None:
    await rig.gateway.ask("lose_link")
    await _outage(rig)
    await rig.gateway.ask("restore_link", data_lost=True)


async def data_kept(rig: Rig) -> None:
    await rig.gateway.ask("lose_link")
    await _outage(rig)
    await rig.gateway.ask("restore_link")


async def server_lost(rig: Rig) -> None:
    await rig.gateway.ask("lose_server")
    await _outage(rig)
    await rig.gateway.ask("restore_link")


async def nightly_reset(rig: Rig) -> None:
    await rig.gateway.ask("nightly_reset")


async def farm(rig: Rig) -> None:
    await rig.gateway.ask("mute_farm")
    await _outage(rig)
    await rig.gateway.ask("heal_farm")


async def farm_lost_streams(rig: Rig) -> None:
    await rig.gateway.ask("mute_farm")
    await _outage(rig)
    await rig.gateway.ask("heal_farm", resubscribe_needed=True)


async def other_session(rig: Rig) -> None:
    await rig.gateway.ask("take_session")
    await _outage(rig)
    await rig.gateway.ask("release_session")


async def book_reset(rig: Rig) -> bool:
    return await _on_one(rig, "reset_book")


async def stream_ended(rig: Rig) -> bool:
    return await _on_one(rig, "kill_one")


async def mute_stream(rig: Rig) -> bool:
    return await _on_one(rig, "mute_one")


async def id_in_use(rig: Rig) -> None:
    await rig.gateway.ask("use_id")
    rig.proxy.reset()


async def no_next_valid_id(rig: Rig) -> None:
    await rig.gateway.ask("withhold_next_valid_id")
    rig.proxy.reset()


async def rate_exceeded(rig: Rig) -> None:
    await rig.gateway.ask("exceed_rate")
    rig.proxy.reset()


async def slow_gateway(rig: Rig) -> None:
    await rig.gateway.ask("read_slowly", interval_s=READ_INTERVAL_S)
    rig.proxy.reset()
    await _outage(rig)
    await rig.gateway.ask("read_slowly", interval_s=0.0)


async def flood(rig: Rig) -> None:
    """Have all that happens in a second come at once; its events are numbered as ever."""
    await rig.gateway.ask("flood", held_s=FLOOD_S)


async def restart(rig: Rig) -> None:
    await rig.gateway.ask("restart", down_s=rig.random.uniform(*OUTAGE_S))


async def killed(rig: Rig) -> None:
    await rig.kill_gateway()
    await _outage(rig)
    await rig.start_gateway(rig.proxy.target_port)


async def blocked_loop(rig: Rig) -> None:
    await rig.subject.ask("block", seconds=rig.random.uniform(*BLOCK_S))


FAULTS: dict[str, Fault] = {
    "reset in frame": reset,
    "cut": cut,
    "refused": refused,
    "black hole": black_hole,
    "frozen": frozen,
    "half open": half_open,
    "trickle": trickle,
    "congestion": congestion,
    "garbage": garbage,
    "wrong length": wrong_length,
    "impossible length": impossible_length,
    "reset in handshake": reset_in_handshake,
    "slow handshake": slow_handshake,
    "1100, 1101": data_lost,
    "1100, 1102": data_kept,
    "2110": server_lost,
    "nightly reset": nightly_reset,
    "farm 2103, 2104": farm,
    "farm, streams gone": farm_lost_streams,
    "10197": other_session,
    "317": book_reset,
    "10182": stream_ended,
    "mute stream": mute_stream,
    "326": id_in_use,
    "no nextValidId": no_next_valid_id,
    "100 three times": rate_exceeded,
    "slow gateway": slow_gateway,
    "flood": flood,
    "restart": restart,
    "gateway killed": killed,
    "blocked loop": blocked_loop,
}
"""By name, what can happen."""


async def make_trouble(rig: Rig, names: Sequence[str], stop: asyncio.Event) -> None:
    """Inject one fault after the other, each kind once in random order before any comes again, until `stop`."""
    for name in _order(rig, names):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rig.random.uniform(*PAUSE_S)):
                await stop.wait()
        if stop.is_set():
            await rig.proxy.serve()  # what was planned for a connection that never came
            return
        rig.log.append((time.time(), name))
        if await FAULTS[name](rig) is False:
            rig.log.pop()


def _order(rig: Rig, names: Sequence[str]) -> Iterator[str]:
    while True:
        yield from rig.random.sample(list(names), len(names))
