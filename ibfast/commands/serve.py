"""`ibfast serve`: one connection to a gateway, served to any number of WebSocket subscribers until a signal ends it.

The rule of the file: it puts the parts together and says what becomes of them, once and in a sentence; what is served,
to whom and how is decided by the settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

from ibfast import __version__
from ibfast.commands.garbage import collect_everything, short_collections
from ibfast.commands.sim_process import HOST, EmbeddedGateway, Simulation, embedded_gateway
from ibfast.common.shown import shown
from ibfast.config.accounts import mask
from ibfast.config.sections import Config, SecurityConfig
from ibfast.connection.manager import IBKRConnectionManager
from ibfast.connection.monitor import STATE_EVENT, Event
from ibfast.errors import ConfigError, NotConnectedError
from ibfast.fanout.access.limits import is_loopback
from ibfast.fanout.access.pages import HEALTH_PATH, METRICS_PATH, STREAM_PATH
from ibfast.fanout.server import FanoutServer
from ibfast.policy.reconnect.reconnection import LinkState

__all__ = ["first_of", "serve"]

STATUS_S = 60.0
"""Time between two lines of status, where a human may read them."""

TOLD_AS_STATES = frozenset({"attempt_failed", "connect_failed", "connection_lost", "gave_up", "needs_login"})
"""Events that say what a change of the state says too."""

STANDARD_ERROR = 2

WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Hosts that stand for all addresses of this machine, and one of these."""


async def serve(config: Config, simulation: Simulation | None = None) -> int:
    """Serve a gateway's data until SIGTERM.

    Args:
        config: of the gateway, of the server, and of permissions.
        simulation: for a gateway that is started here, in place of that of `config`.

    Returns:
        The exit code.

    Raises:
        ConfigError: that can't be served, or not there.
        ConnectError, NotConnectedError: there will be no connection to the gateway, however long it is waited for.
    """
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_logging())
        terminated = stack.enter_context(_termination())
        gateway: EmbeddedGateway | None = None
        source = f"the gateway {_joined(config.host, config.port)} as client {config.client_id}"
        if simulation is not None:
            gateway = await stack.enter_async_context(embedded_gateway(simulation))
            config = replace(config, host=HOST, port=gateway.port)
            source = "the embedded gateway"
        manager = IBKRConnectionManager(config)
        stack.push_async_callback(manager.disconnect)
        server = await stack.enter_async_context(_Listening(manager, config))
        stack.enter_context(_hangups(server, terminated))
        print("\n".join(_greeting(server, source)), flush=True)
        stack.enter_context(short_collections())
        ends: list[Coroutine[Any, Any, object]] = [terminated.wait(), _keep_connected(manager)]
        if gateway is not None:
            ends.append(gateway.ended())
        if sys.stderr.isatty():
            ends.append(_report(manager, server))
        await first_of(*ends)
    return 0


async def first_of(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run all until one of them ends; raise what it raises."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Listening(FanoutServer):
    """A manager's server, which says in a sentence why it can't listen."""

    def __init__(self, manager: IBKRConnectionManager, config: Config) -> None:
        super().__init__(
            manager.feed, manager, config.fanout, config.security,
            health=manager.health, registry=manager.monitor.registry,
        )  # fmt: skip

    async def __aenter__(self) -> _Listening:
        try:
            return await super().__aenter__()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
            address = _joined(self.config.host, self.config.port)
            raise ConfigError(f"nothing can listen at {address} ({why}): give another address by --listen") from None


@contextlib.contextmanager
def _termination() -> Iterator[asyncio.Event]:
    """Yield an event that is set when a signal asks the process to end. Without such signals it is never set."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGTERM, event.set)
    try:
        yield event
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGTERM)


@contextlib.contextmanager
def _hangups(server: FanoutServer, terminated: asyncio.Event) -> Iterator[None]:
    """Have files read again at SIGHUP; if it comes because the terminal has gone, that is the end."""
    loop, has_terminal = asyncio.get_running_loop(), os.isatty(STANDARD_ERROR)

    def hung_up() -> None:
        if has_terminal and not os.isatty(STANDARD_ERROR):
            terminated.set()
        else:
            server.reload()

    if os.name == "posix":
        loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        yield
    finally:
        if os.name == "posix":
            loop.remove_signal_handler(signal.SIGHUP)


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Have warnings logged, but for what is said otherwise."""
    logger = logging.getLogger("ibfast")
    level = logger.level

    def is_news(record: logging.LogRecord) -> bool:
        event = getattr(record, "event", None)
        return event is None or event.name not in TOLD_AS_STATES

    logger.setLevel(logging.WARNING)
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)
        logger.setLevel(level)


# --- the connection to the gateway ---


async def _keep_connected(manager: IBKRConnectionManager) -> None:
    """Connect, and say what becomes of it; end only by an error, when there will be no connection any more."""
    over = asyncio.Event()
    told = ""

    def hear(event: Event) -> None:
        nonlocal told
        if event.name != STATE_EVENT:
            return
        state = LinkState[str(event.fields["after"])]
        if _is_final(state, manager.config):
            over.set()
        elif state is not LinkState.CONNECTING:
            if state is not LinkState.CONNECTED:  # no data comes that this could hold up
                asyncio.get_running_loop().call_soon(collect_everything)
            said = _session(manager) if state is LinkState.CONNECTED else _no_session(state, event)
            if said != told:
                print(f"ibfast: {said}", file=sys.stderr, flush=True)
                told = said

    stop = manager.monitor.listen(hear)
    try:
        await manager.connect(persist=True)
        await over.wait()
    finally:
        stop()
    raise manager.last_error or NotConnectedError("the connection to the gateway has ended")


def _is_final(state: LinkState, config: Config) -> bool:
    """Return whether no connection will be made from here on."""
    if config.reconnection.enabled:
        return state in (LinkState.IDLE, LinkState.GAVE_UP)
    return state not in (LinkState.CONNECTING, LinkState.CONNECTED)


def _session(manager: IBKRConnectionManager) -> str:
    accounts = shown(", ".join(map(mask, manager.protocol.accounts)))
    return f"connected, server version {manager.protocol.server_version}, account {accounts}"


def _no_session(state: LinkState, event: Event) -> str:
    return f"no session with the gateway ({state.value}), it is tried again: {event.fields['reason']}"


# --- what is said ---


def _greeting(server: FanoutServer, source: str) -> Iterator[str]:
    """Yield the lines with which it begins: what is where, for whom, and how to subscribe."""
    security = server.security
    host = server.config.host
    if host in WILDCARDS:
        # A certificate has the machine's name.
        host = socket.gethostname() if security.has_tls else WILDCARDS[host]
    address = _joined(host, server.address[1])
    tls = "s" if security.has_tls else ""
    stream = f"ws{tls}://{address}{STREAM_PATH}"
    everywhere = ", on all addresses of this machine" if server.config.host in WILDCARDS else ""
    yield f"ibfast {__version__} serves {source}{everywhere}"
    yield f"stream   {stream}"
    yield f"health   http{tls}://{address}{HEALTH_PATH}"
    yield f"metrics  http{tls}://{address}{METRICS_PATH}"
    yield f"for      {_audience(server.config.host, security)}"
    yield f"try      {_example(stream, needs_token=security.has_authentication)}"


def _audience(host: str, security: SecurityConfig) -> str:
    if security.tokens_file is not None:
        return f"clients with a token: ibfast token NAME --tokens-file {security.tokens_file}"
    if security.has_authentication:
        return "clients with a token: ibfast token NAME --help"
    if is_loopback(host):
        return "programs of this machine, without a token"
    return "all clients that can reach it, without a token"


def _example(stream: str, *, needs_token: bool) -> str:
    headers = ", additional_headers={'Authorization': 'Bearer TOKEN'}" if needs_token else ""
    return (
        f"python -c \"import json, websockets.sync.client as c; ws = c.connect('{stream}'{headers}).__enter__(); "
        "ws.send(json.dumps(dict(op='subscribe', symbol='AAPL'))); [print(text) for text in ws]\""
    )


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _report(manager: IBKRConnectionManager, server: FanoutServer) -> None:
    """Say now and then how it fares."""
    seq = manager.feed.seq
    while True:
        await asyncio.sleep(STATUS_S)
        present, rows, seq = server.present(), manager.feed.seq - seq, manager.feed.seq
        print(
            f"ibfast: {manager.monitor.state}, {rows / STATUS_S:,.0f} rows/s to {sum(present.subscribers.values()):,} "
            f"subscribers with {present.subscriptions:,} subscriptions, {present.behind:,} of them behind, "
            f"{server.tally.rows_left_out:,} rows left out so far",
            file=sys.stderr,
            flush=True,
        )
