"""`ibfast demo`: the whole path, from a gateway's socket to readers and to a WebSocket, shown and measured.

The rule of the file: it uses the public interface as any program does, and prints at the end only what it measured.
With a file of ticks it serves no subscribers, and compares what arrived with the file, event by event.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import sys
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ibfast.client.provider import WebSocketProvider
from ibfast.commands.sim_process import Simulation, embedded_gateway
from ibfast.config.sections import Config, FanoutConfig, PacingConfig, ReconnectionConfig
from ibfast.connection.manager import IBKRConnectionManager
from ibfast.connection.protocol import Protocol
from ibfast.connection.stream import Stream
from ibfast.errors import ConfigError, ConnectError, RequestError, StreamError
from ibfast.fanout.server import FanoutServer
from ibfast.feed.feed import Feed
from ibfast.feed.ring import Reader
from ibfast.records import NS_PER_S, Kind
from ibfast.wire.ids import MarketDataType, ServerVersion

__all__ = ["DemoOptions", "demo"]

SYMBOLS = ("AAPL", "MSFT", "NVDA", "AMZN", "GOOG", "META", "TSLA", "IBM", "SPY", "QQQ")
LEVEL_1 = ("QUOTES", "TRADES", "TICKS")
TICK_BY_TICK = ("ALL_LAST", "BID_ASK")
MOST_LATENCY_US = 1_000_000
REFRESH_S = 0.25
# A replay that brings nothing new for so long has ended, or is stuck.
STALL_S = 10.0
INTERRUPTED = 130
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of the command line; `port` None is the embedded gateway."""

    seconds: float = 10.0
    host: str = "127.0.0.1"
    port: int | None = None
    client_id: int = 17
    symbols: tuple[str, ...] = ()
    rate: float = 20_000.0
    server_version: int = ServerVersion.MAX
    seed: int = 1
    ticks: Path | None = None
    speed: float = 1.0


class RingRecorder:
    """Reads rings as a consumer does, and counts.

    Attributes:
        records: rows read.
        latency_us: how many rows took so many µs from the socket read to this reader; the last bin takes the rest.
        rows: the batches themselves by ring, if they are to be kept.
    """

    def __init__(self, feed: Feed, rings: tuple[str, ...], *, keep: bool = False) -> None:
        self.readers: dict[str, Reader] = {ring: feed.rings[ring].reader() for ring in rings}
        self.records = 0
        self.latency_us = np.zeros(MOST_LATENCY_US + 1, np.int64)
        self.rows: dict[str, list[NDArray[Any]]] = {ring: [] for ring in rings}
        self._keep = keep

    async def read(self, ring: str) -> None:
        """Read one ring until its reader is closed."""
        async for rows in self.readers[ring]:
            micros = (time.time_ns() - rows["recv_ns"]) // 1000
            np.add.at(self.latency_us, np.clip(micros, 0, MOST_LATENCY_US), 1)
            self.records += len(rows)
            if self._keep:
                self.rows[ring].append(rows)

    @property
    def lost(self) -> int:
        """Rows overwritten before they were read."""
        return sum(reader.lost for reader in self.readers.values())

    def quantile_us(self, q: float) -> int:
        """Return the latency that a share `q` of the rows did not exceed."""
        cumulated = np.cumsum(self.latency_us)
        return int(np.searchsorted(cumulated, q * cumulated[-1])) if cumulated[-1] else 0


class StreamSubscriber:
    """A subscriber of the stream, by a WebSocket as any other program has it.

    Attributes:
        url: of the stream.
        rows: how many have come so far.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.rows = 0
        self._provider = WebSocketProvider(Config(stream_url=url))

    @property
    def left_out(self) -> str:
        """How many rows the server has left out."""
        lag = self._provider.lag
        return f"more than {lag.rows:,}" if lag.unknown else f"{lag.rows:,}"

    @contextlib.asynccontextmanager
    async def reading(self, symbols: Iterable[str]) -> AsyncIterator[None]:
        """Read all data of these symbols."""
        async with self._provider as provider:
            reader = asyncio.create_task(self._read())
            try:
                for symbol in symbols:
                    with contextlib.suppress(StreamError):  # refused: shown below the table anyway
                        await provider.subscribe(symbol, data_type="ALL")
                yield
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def _read(self) -> None:
        async for batch in self._provider.batches():
            self.rows += 0 if batch.is_snapshot else len(batch.rows)

    def __str__(self) -> str:
        return f"by WebSocket {self.rows:,} rows, {self.left_out} left out"


async def demo(options: DemoOptions) -> int:
    """Run the demo; return the exit code."""
    console = Console()
    async with contextlib.AsyncExitStack() as stack:
        manager = await _connected(stack, console, options)
        expected = _read_ticks(options.ticks) if options.ticks is not None else None
        symbols = options.symbols or SYMBOLS
        if expected is not None:
            symbols = tuple(dict.fromkeys(expected["symbol"].tolist()))
        rings = ("trades", "quotes") if expected is not None else ("ticks", "trades", "quotes")
        recorder = RingRecorder(manager.feed, rings, keep=expected is not None)
        readers = [asyncio.create_task(recorder.read(ring)) for ring in rings]
        subscriber = await _served(stack, console, manager) if expected is None else None
        streams = await _subscribe(manager, symbols, TICK_BY_TICK if expected is not None else LEVEL_1)
        if subscriber is not None:
            await stack.enter_async_context(subscriber.reading(streams))
        # The start-up is mostly contract details, which no tick waits for: only what follows is timed.
        protocol = manager.protocol
        before = protocol.decode_ns, _messages(protocol)
        interrupted = False
        screen = partial(_screen, manager, streams, subscriber)
        with Live(console=console, refresh_per_second=1 / REFRESH_S, get_renderable=screen):
            try:
                if expected is None:
                    await _watch(manager, streams, options.seconds)
                else:
                    await _until_complete(manager, recorder, len(expected))
            except asyncio.CancelledError:
                interrupted = True  # Ctrl-C ends the watching; the measurements are still printed
        for reader in recorder.readers.values():
            reader.close()
        await asyncio.gather(*readers)
        decode_ns = (protocol.decode_ns - before[0]) / max(_messages(protocol) - before[1], 1)
        exit_code = _close(console, manager, recorder, decode_ns, expected, subscriber)
        if not interrupted and not manager.connected and manager.last_error is not None:
            raise manager.last_error
        return INTERRUPTED if interrupted else exit_code


async def _connected(stack: contextlib.AsyncExitStack, console: Console, options: DemoOptions) -> IBKRConnectionManager:
    """Connect until the end of the demo, to an embedded gateway unless a port is given."""
    port = options.port
    if port is None:
        port = (await stack.enter_async_context(embedded_gateway(_simulation(options)))).port
    config = Config(
        host=options.host,
        port=port,
        client_id=options.client_id,
        reconnection=ReconnectionConfig(enabled=False),  # a lost connection ends the demo
        pacing=PacingConfig(enforced=options.ticks is None),  # the gateway of a replay has no limits
    )
    manager = IBKRConnectionManager(config)
    if not await manager.connect():
        assert isinstance(manager.last_error, ConnectError)
        raise manager.last_error
    stack.push_async_callback(manager.disconnect)
    console.print(
        f"connected to {config.host}:{config.port}, server version {manager.protocol.server_version}, "
        f"account {', '.join(manager.protocol.accounts)}"
    )
    if options.port is not None:
        # Accounts without real-time permissions get delayed data instead of a refusal.
        manager.set_market_data_type(MarketDataType.DELAYED)
    return manager


def _simulation(options: DemoOptions) -> Simulation:
    return Simulation(
        rate=options.rate,
        server_version=options.server_version,
        seed=options.seed,
        ticks=options.ticks,
        speed=options.speed,
    )


async def _served(
    stack: contextlib.AsyncExitStack, console: Console, manager: IBKRConnectionManager
) -> StreamSubscriber:
    """Serve the feed until the end of the demo, and return a subscriber that is not connected yet."""
    server = await stack.enter_async_context(FanoutServer(manager.feed, manager, FanoutConfig(port=0)))
    url = "ws://{}:{}/stream".format(*server.address)
    console.print(f"serves {url} to programs of this machine", highlight=False, soft_wrap=True)
    return StreamSubscriber(url)


async def _subscribe(
    manager: IBKRConnectionManager, symbols: tuple[str, ...], data_types: tuple[str, ...]
) -> dict[str, Stream]:
    """Subscribe every symbol to every data type; return a stream of each symbol that the gateway knows."""
    streams = {}
    for symbol in symbols:
        try:
            for data_type in data_types:
                streams[symbol] = await manager.subscribe(symbol, data_type)
        except (RequestError, ValueError) as error:
            print(f"ibfast: {symbol} is left out: {error}", file=sys.stderr)
    if not streams:
        raise ConfigError("none of the symbols could be subscribed to")
    return streams


async def _watch(manager: IBKRConnectionManager, streams: dict[str, Stream], seconds: float) -> None:
    """Wait for the time to pass, or for the end of the connection or of every stream."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and manager.connected and any(stream.live for stream in streams.values()):
        await asyncio.sleep(min(REFRESH_S, max(deadline - time.monotonic(), 0)))


async def _until_complete(manager: IBKRConnectionManager, recorder: RingRecorder, events: int) -> None:
    """Wait for all events, as long as they keep coming."""
    seen, since = -1, time.monotonic()
    while recorder.records + recorder.lost < events and manager.connected and time.monotonic() - since < STALL_S:
        if recorder.records + recorder.lost != seen:
            seen, since = recorder.records + recorder.lost, time.monotonic()
        await asyncio.sleep(0.02)


def _screen(manager: IBKRConnectionManager, streams: dict[str, Stream], subscriber: StreamSubscriber | None) -> Group:
    """The table, and below it a line for each refusal; the loss of the connection ends the demo."""
    symbols: dict[str, list[str]] = {}
    for symbol, stream in streams.items():
        if isinstance(stream.error, RequestError):
            symbols.setdefault(f"error {stream.error.code}: {stream.error.message}", []).append(symbol)
    lines = [Text(f"{', '.join(names)}: {error}") for error, names in symbols.items()]
    return Group(_table(manager, streams, subscriber), *lines)


def _table(manager: IBKRConnectionManager, streams: dict[str, Stream], subscriber: StreamSubscriber | None) -> Table:
    """The last-value table, as people read it."""
    table = Table(title="last values", caption=None if subscriber is None else str(subscriber))
    table.add_column("symbol", no_wrap=True)
    for column in ("bid size", "bid", "ask", "ask size", "last", "size", "volume"):
        table.add_column(column, justify="right", no_wrap=True)
    last = manager.feed.snapshot()
    for symbol, stream in streams.items():
        row = last[stream.instrument]
        fields = ("bid_size", "bid", "ask", "ask_size", "last", "last_size", "volume")
        table.add_row(symbol, *("" if np.isnan(row[name]) else _number(row[name]) for name in fields))
    return table


def _number(value: float) -> str:
    if value >= MILLION:
        return f"{value / MILLION:,.1f}M"
    return f"{value:,.8g}"


def _messages(protocol: Protocol) -> int:
    return protocol.decoder.messages if protocol.decoder is not None else 0


def _close(
    console: Console,
    manager: IBKRConnectionManager,
    recorder: RingRecorder,
    decode_ns: float,
    expected: NDArray[np.void] | None,
    subscriber: StreamSubscriber | None,
) -> int:
    """Print the closing line and return the exit code."""
    decoder = manager.protocol.decoder
    assert decoder is not None
    parts = [
        f"messages {decoder.messages:,}",
        f"records {recorder.records:,}",
        f"lost {recorder.lost:,}",
        f"decode {decode_ns:.0f} ns/message",
        f"socket to reader p50 {recorder.quantile_us(0.5):,} µs, p99 {recorder.quantile_us(0.99):,} µs",
    ]
    if subscriber is not None:
        parts.append(str(subscriber))
    different = 0
    if expected is not None and recorder.lost:
        parts.append("not compared with the file, since rows were lost")
    elif expected is not None:
        different = _count_differences(_events(manager.feed, recorder), expected)
        parts.append(f"identical with the file {len(expected) - different:,} of {len(expected):,} events")
    if decoder.quarantined:
        parts.append(f"malformed {decoder.quarantined:,}")
    console.print()
    console.print(" | ".join(parts), highlight=False, soft_wrap=True)
    return 1 if different or recorder.lost or decoder.quarantined else 0


# --- the file against the records -----------------------------------------------------------------------------------

NUMBERS = ("price", "size", "bid", "ask", "bid_size", "ask_size")
EVENT = np.dtype([("second", "i8"), ("symbol", "U32"), ("trade", "?"), *((name, "f8") for name in NUMBERS)], align=True)


def _read_ticks(path: Path) -> NDArray[np.void]:
    """Read the file once more, by other code than the gateway's."""
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet
        except ImportError:
            raise ConfigError(f"{path}: Parquet files need pyarrow: pip install pyarrow") from None
        columns = pyarrow.parquet.read_table(path).to_pydict()
    else:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            names = file.readline().strip().split(",")
            columns = dict(zip(names, zip(*(line.rstrip("\n").split(",") for line in file), strict=True), strict=True))
    try:
        events = np.zeros(len(columns["ts_ns"]), EVENT)
        events["second"] = np.array(columns["ts_ns"], np.int64) // NS_PER_S
        events["symbol"] = columns["symbol"]
        events["trade"] = np.array(columns["kind"]) == "T"
        for name in NUMBERS:
            events[name] = [float("nan") if value in ("", None) else float(value) for value in columns[name]]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{path} is no file of ticks: {error}") from None
    return events


def _events(feed: Feed, recorder: RingRecorder) -> NDArray[np.void]:
    """The records that arrived, in the order of their decoding, in the file's terms."""
    trades = np.concatenate([*recorder.rows["trades"], np.zeros(0, feed.dtypes["trades"])])
    quotes = np.concatenate([*recorder.rows["quotes"], np.zeros(0, feed.dtypes["quotes"])])
    labels = np.array(list(feed.instruments), EVENT["symbol"])
    events = np.zeros(len(trades) + len(quotes), EVENT)
    for name in NUMBERS:
        events[name] = np.nan
    for rows, part in ((trades, events[: len(trades)]), (quotes, events[len(trades) :])):
        part["second"] = rows["event_ns"] // NS_PER_S
        part["symbol"] = labels[rows["instrument"]]
        part["trade"] = rows["kind"] == Kind.ALL_LAST
        for name in set(rows.dtype.names or ()).intersection(NUMBERS):
            part[name] = rows[name]
    return events[np.argsort(np.concatenate([trades["seq"], quotes["seq"]]), kind="stable")]


def _count_differences(arrived: NDArray[np.void], expected: NDArray[np.void]) -> int:
    """How many events of the file are not there, at their place, with every value the same."""
    n = min(len(arrived), len(expected))
    same = np.ones(n, bool)
    for name in EVENT.names or ():
        a, b = arrived[name][:n], expected[name][:n]
        same &= (a == b) | ((a != a) & (b != b))  # NaN is equal to NaN here
    return max(len(arrived), len(expected)) - int(np.count_nonzero(same))
