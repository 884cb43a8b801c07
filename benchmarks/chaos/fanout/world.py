"""A fan-out world: gateways, a manager or a pool, a server, its clients, and the steps that happen to them; then rest.

The rule of the file: it puts the parts together. It is the world of the connection's chaos, whose troubles happen here
too, with a server in the place of a user's streams.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.chaos.fanout.census import Census
from benchmarks.chaos.fanout.client import Client
from benchmarks.chaos.fanout.market import FanoutMarket
from benchmarks.chaos.fanout.ours import Ours
from benchmarks.chaos.fanout.rest import Rest, left_by
from benchmarks.chaos.fanout.socket_client import Manner
from benchmarks.chaos.fanout.tracks import Seen
from benchmarks.chaos.fanout.truth import Source, Truth
from benchmarks.chaos.judge import Problem
from benchmarks.chaos.market import CONTRACTS, FIRST_CON_ID, Market
from benchmarks.chaos.world import Setup, Verdict, World, gathered
from ibfast.config import FanoutConfig
from ibfast.config.security import SecurityConfig
from ibfast.contracts import Contract
from ibfast.errors import ConfigError
from ibfast.fanout.server import FanoutServer

START_S = 30.0
LETTERS = {"full": "f", "little": "l", "brief": "b"}
LITTLE = "subscriptions = 3\nlines = 3\nmax_bytes_per_s = 20000\nleast_interval_ms = 50"
EXPIRY_S = 2.5
"""A session may outlive its token by so much: a round of the server's upkeep, and a busy machine."""


@dataclass(frozen=True)
class FanoutSetup(Setup):
    """What a fan-out world is made of; of the connection's, `is_patient` is not used.

    Attributes:
        market_seed: of everything that happens in the market.
        has_tokens: whether clients need a token; `brief_s`: when the brief one expires.
        max_connections: that the server takes.
        max_control_per_s: of a client's messages.
        is_process: the server is a process.
        linger_s, heartbeat_s, ping_s, backlog_bytes, backlog_s, patience_s, stalled_s: of the server.
    """

    market_seed: int = 1
    has_tokens: bool = False
    brief_s: float = 3.0
    is_process: bool = False
    max_connections: int = 12
    max_control_per_s: int = 100
    linger_s: float = 0.5
    heartbeat_s: float = 0.5
    ping_s: float = 20.0
    backlog_bytes: int = 1 << 16
    backlog_s: float = 0.5
    patience_s: float = 1.0
    stalled_s: float = 4.0


class FanoutWorld(World):
    """Use it as `World`.

    Attributes:
        server: that is running, None while there is none.
        truth: what there was.
        clients: all, also those that have left.
        ours: programs that use ibfast's own client.
        census: of all connections to the server.
        seen: what those that have left would go on with.
        stopped_s: when a server was stopped, the last time.
        blocked_s: for how long the loop was blocked, all in all.
        revoked_s: since when the brief token is no token any more.
    """

    setup: FanoutSetup

    def __init__(self, setup: FanoutSetup) -> None:
        super().__init__(setup)
        self.server: FanoutServer | None = None
        self.clients: list[Client] = []
        self.ours: list[Ours] = []
        self.census = Census(time.monotonic)
        self.seen: list[Seen] = []
        self.stopped_s = -1e9
        self.blocked_s = 0.0
        self.revoked_s = math.inf
        self.begun_s = time.time()
        self._folder = tempfile.TemporaryDirectory(prefix="chaos-fanout-")
        self._serving = asyncio.Lock()
        self._port = 0

    def new_market(self) -> Market:
        """See `World`."""
        return FanoutMarket(self.setup.market_seed)

    async def begin(self) -> None:
        """See `World`: a manager or a pool, and a server of its feed."""
        self._stack.callback(self._folder.cleanup)
        await super().begin()
        self.truth = Truth(self.user.feed)
        self.truth.follow()
        deadline_s = time.monotonic() + START_S
        while not self.user.is_connected and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)
        self.begun_s = time.time()
        await self.start_server()

    # --- the server ---

    @property
    def expires_s(self) -> float:
        """When the brief token expires: a whole second, as files have it."""
        return float(int(self.begun_s + self.setup.brief_s) + 1)

    def _security(self) -> SecurityConfig:
        setup = self.setup
        return SecurityConfig(
            tokens_file=self._written_tokens() if setup.has_tokens else None,
            max_connections=setup.max_connections,
            max_control_per_s=setup.max_control_per_s,
        )

    def _written_tokens(self) -> str:
        """Write the file of tokens, and return its path."""
        path = Path(self._folder.name) / "tokens.toml"
        brief = datetime.fromtimestamp(self.expires_s, UTC)
        tables = {"full": "", "little": LITTLE}
        if self.revoked_s == math.inf:
            tables["brief"] = f"expires = {brief:%Y-%m-%dT%H:%M:%SZ}"
        path.touch(mode=0o600)
        path.write_text(
            "\n".join(f'[{name}]\ntoken = "{token_of(name)}"\nsymbols = ["*"]\n{tables[name]}' for name in tables)
        )
        return str(path)

    def revoke(self) -> None:
        """Have the brief token be none any more."""
        if self.setup.has_tokens and self.server is not None and self.revoked_s == math.inf:
            self.revoked_s = time.time()
            self._written_tokens()
            self.server.reload()

    async def start_server(self) -> None:
        """Serve, unless that is done."""
        async with self._serving:
            if self.server is not None:
                return
            setup = self.setup
            config = FanoutConfig(
                port=self._port, linger_s=setup.linger_s, heartbeat_s=setup.heartbeat_s, ping_s=setup.ping_s,
                backlog_bytes=setup.backlog_bytes, backlog_s=setup.backlog_s, patience_s=setup.patience_s,
                stalled_s=setup.stalled_s,
            )  # fmt: skip
            client = self.user.client
            registry = client.monitor.registry if setup.members == 1 else None
            try:
                server = FanoutServer(
                    self.user.feed, Source(client, self.truth), config, self._security(),
                    health=client.health, registry=registry,
                )  # fmt: skip
            except ConfigError as error:
                self.problem("exception", f"the server can't be made: {error!r}")
                return
            await server.__aenter__()
            self.server = server
            self._port = server.address[1]  # whoever comes back finds the next one
            self.note("the server serves")

    async def stop_server(self) -> None:
        """End the server, as SIGTERM does, and look for what it leaves."""
        async with self._serving:
            server, self.server = self.server, None
            if server is None:
                return
            self.stopped_s = time.monotonic()
            self.note("the server stops")
            await server.__aexit__(None, None, None)
            self.stopped_s = time.monotonic()
            for text in left_by(server):
                self.problem("left", f"a server that has stopped has {text}")

    async def served(self) -> None:
        """Wait until steps make sense again; a server in this process is stopped and started soon enough."""

    async def kill_server(self) -> None:
        """End the server without a word, where that can be done: not in this process."""

    @property
    def address(self) -> tuple[str, int] | None:
        """Where clients connect; None while nothing serves."""
        return None if self.server is None else self.server.address

    def has_raised(self, error: BaseException | None) -> bool:
        """See `World`. uvloop does not say in which context a callback has failed."""
        trace = None if error is None else error.__traceback__
        while trace is not None and self.server is not None:
            if trace.tb_frame.f_locals.get("self") is self.server:
                return True
            trace = trace.tb_next
        return False

    # --- clients ---

    def come(self, manner: Manner) -> Client | None:
        """Have a client connect, if there is a server."""
        if self.address is None:
            return None
        client = Client(len(self.clients), manner, self.address, self.truth, contract_of, self.problem)
        number = self.census.arrive()
        client.task.add_done_callback(lambda task: self._gone(client, number, task))
        self.clients.append(client)
        return client

    def open_clients(self) -> list[Client]:
        """Return the clients that converse."""
        return [client for client in self.clients if client.is_open and not client.left and not client.closing]

    def _gone(self, client: Client, number: int, task: asyncio.Task[Any]) -> None:
        """Judge how a client's connection has ended, which has this number in the census."""
        self.census.leave(number)
        if not task.cancelled() and task.exception() is not None:
            self.problem("exception", f"{client.name} has failed: {task.exception()!r}")
        self.seen += client.seen()
        del self.seen[:-40]
        now_s = time.monotonic()
        is_stopping = self.address is None or now_s - self.stopped_s < START_S
        if client.left or task.cancelled():
            return
        token, has_expired = client.manner.token, time.time() >= self.expires_s - 1.0
        is_revoked = time.time() >= self.revoked_s
        is_brief = self.setup.has_tokens and token == token_of("brief")
        if client.status:
            is_full = self.census.most(number) > self.setup.max_connections
            # Who is in the handshake while the server stops is told so by 503.
            met_stop = self.address is None or self.stopped_s >= self.census.begun_s(number)
            expected = {
                401: is_brief and (has_expired or is_revoked), 503: is_full or met_stop, -1: is_stopping or is_full,
            }  # fmt: skip
            if not expected.get(client.status, False):
                self.problem("cut", f"{client.name} was refused with status {client.status}")
            return
        is_slow = client.paused_s or client.manner.is_narrow or self.blocked_s
        reasons = {"EXPIRED": is_brief and has_expired, "REVOKED": is_brief and is_revoked, "SHUTDOWN": is_stopping}
        reasons |= {"TOO_SLOW": is_slow, "TOO_FAST": client.may_hurry, "": is_slow or is_stopping}
        if not reasons.get(client.closing, False):
            self.problem("cut", f"{client.name} was cut, {client.end}, closing {client.closing!r}")

    # --- the end ---

    def block(self, for_s: float) -> None:
        """Have the event loop of the server stand still."""
        self.blocked_s += for_s
        time.sleep(for_s)

    async def verdict(self) -> Verdict:
        """Let everything come to rest, end it, and return what was found."""
        await self._heal_all()
        self.user.events_ended()
        await self.user.calls_ended()
        rest = Rest(self)
        await self.start_server()
        await rest.come()
        await rest.leave()
        await self.stop_server()
        self.truth.is_followed = False
        if self._beating.done():
            self.problem("exception", f"the market has ended: {self._beating.exception()!r}")
        await self._end()
        self.problems += [Problem(*problem) for problem in self.user.problems]
        return self._judged_verdict()

    async def _heal_all(self) -> None:
        while self.scripts:
            await asyncio.wait(tuple(self.scripts))
        self.note("everything is made well again")
        await self._heal()

    def _judged_verdict(self) -> Verdict:
        return Verdict(gathered(self.problems), self._counts(), self.journal)

    def _counts(self) -> Counter[str]:
        return self._client_counts() + super()._counts()

    def _client_counts(self) -> Counter[str]:
        counts = Counter(
            clients=len(self.clients),
            messages=sum(client.messages for client in self.clients),
            rows=sum(client.rows for client in self.clients) + sum(len(each.rows) for each in self.ours),
            providers=len(self.ours),
            published=self.truth.count,
            generations=len(self.truth.generations),
            blind=int(self.truth.is_blind),
        )
        for client in self.clients:
            counts += client.ops
        return counts


def token_of(name: str) -> str:
    """Return the token of a holder."""
    return LETTERS[name] * 40


def contract_of(options: Mapping[str, Any]) -> Contract:
    """Return the contract that a request for data means."""
    described = options.get("contract") or {"symbol": options["symbol"]}
    con_id = described.get("con_id", 0)
    if con_id:
        known = CONTRACTS[con_id - FIRST_CON_ID]
    else:
        sec_type = described.get("sec_type", "STK")
        known = next(each for each in CONTRACTS if (each.symbol, each.sec_type) == (described["symbol"], sec_type))
    return Contract(symbol=known.symbol, sec_type=known.sec_type, exchange=described.get("exchange", "SMART"))
