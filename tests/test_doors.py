"""Who may know whom: the import graph of the package, read from its sources.

A door that is opened by mistake shows here, and not years later in a cycle. Rooms and doors are described in
docs/architecture.md.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ibfast

ROOT = Path(ibfast.__file__).parent
NETWORK = {"asyncio", "socket", "selectors", "ssl", "uvloop", "websockets"}
CLOCKS = {"time"}
ABOVE_THE_FEED = {
    "ibfast.connection.protocol", "ibfast.connection.transport", "ibfast.connection.link",
    "ibfast.connection.send_queue", "ibfast.connection.queries", "ibfast.connection.stream", "ibfast.connection.owner",
    "ibfast.connection.backfill", "ibfast.connection.live_requests", "ibfast.connection.journal",
    "ibfast.connection.gauges", "ibfast.connection.error_actions", "ibfast.connection.supervisor",
    "ibfast.connection.manager", "ibfast.connection.pool", "ibfast.connection.store", "ibfast.connection.monitor",
    "ibfast.client.updates", "ibfast.client.tape", "ibfast.client.rows", "ibfast.client.session",
    "ibfast.client.protocol", "ibfast.client.readers", "ibfast.client.socket", "ibfast.client.requests",
    "ibfast.client.transport", "ibfast.client.subscription", "ibfast.engine", "ibfast.client.provider",
    "ibfast.commands.main", "ibfast.commands.sim_process", "ibfast.commands.serve", "ibfast.commands.demo",
}  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def python_imports(path: Path) -> set[str]:
    """Every module that a Python file names in an import, inside of functions and type checks too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES
    return found


CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\b|c?import\s+([\w.]+))", re.MULTILINE)


def cython_imports(path: Path) -> set[str]:
    return {first or second for first, second in CYTHON_IMPORT.findall(path.read_text())}


PYTHON = {module_name(path): path for path in ROOT.rglob("*.py")}
CYTHON = sorted([*ROOT.rglob("*.pyx"), *ROOT.rglob("*.pxd")])
COMPILED = {module_name(path) for path in CYTHON if path.suffix == ".pyx"}
MODULES = set(PYTHON) | {module_name(path) for path in CYTHON}

IMPORTS = {name: python_imports(path) for name, path in PYTHON.items()}
for source in CYTHON:
    IMPORTS.setdefault(module_name(source), set()).update(cython_imports(source))


def reached_from(*names: str) -> set[str]:
    """Everything that these modules import, they themselves or what they import."""
    reached: set[str] = set()
    left = list(names)
    while left:
        for name in IMPORTS.get(left.pop(), ()):
            if name not in reached:
                reached.add(name)
                left.append(name)
    return reached


def within(package: str) -> list[str]:
    return [name for name in IMPORTS if name == package or name.startswith(f"{package}.")]


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_graph_was_read() -> None:
    assert {"ibfast._core", "ibfast.feed._feed", "ibfast.feed._ring"} <= COMPILED
    assert "ibfast.feed._feed" in IMPORTS["ibfast._core"]
    assert "ibfast.feed._atomic" in IMPORTS["ibfast.feed._ring"]
    assert "ibfast.connection.protocol" in IMPORTS["ibfast.connection.manager"]
    assert "ibfast.sim.desk" in reached_from("ibfast.sim.gateway")
    for names in IMPORTS.values():
        for name in names:
            if name.startswith("ibfast."):
                assert name in MODULES, f"{name} is imported and not there"


@pytest.mark.parametrize("module", ["ibfast._core", "ibfast.feed._feed", "ibfast.feed._ring"])
def test_compiled_code_knows_no_loop_and_nothing_above_it(module: str) -> None:
    reached = reached_from(module)
    assert not roots(reached) & (NETWORK | {"threading", "logging"})
    assert not reached & (ABOVE_THE_FEED | {"ibfast.feed.feed", "ibfast.feed.ring", "ibfast"})
    assert not any(name.startswith("ibfast.sim") for name in reached)


def test_a_ring_knows_no_record_and_no_wire() -> None:
    assert {name for name in reached_from("ibfast.feed._ring") if name.startswith("ibfast.")} == {
        "ibfast.feed._atomic", "ibfast.errors", "ibfast.shown",
    }  # fmt: skip


@pytest.mark.parametrize(
    "module", ["ibfast.connection.protocol", "ibfast.connection.stream", *within("ibfast.wire"), "ibfast.contracts"]
)
def test_what_is_sans_io_imports_no_network_and_no_clock(module: str) -> None:
    assert not roots(IMPORTS[module]) & (NETWORK | CLOCKS)


def test_the_wire_is_at_the_bottom() -> None:
    below = {
        "ibfast.contracts",
        "ibfast.enums",
        "ibfast.errors",
        "ibfast.history",
        "ibfast.scalars",
        "ibfast.wire.times",
    }
    for module in within("ibfast.wire"):
        own = {name for name in IMPORTS[module] if name.startswith("ibfast.") and not name.startswith("ibfast.wire")}
        assert own <= below, module
    assert not roots(reached_from(*within("ibfast.wire"))) & NETWORK


def test_the_simulator_is_imported_by_the_commands_only() -> None:
    importers = {
        name for name, names in IMPORTS.items() if any(other.startswith("ibfast.sim") for other in names)
    } - set(within("ibfast.sim"))
    assert importers <= {"ibfast.commands.main", "ibfast.commands.demo"}


def test_the_simulator_uses_public_modules_only() -> None:
    for module in within("ibfast.sim"):
        for name in IMPORTS[module]:
            if name.startswith("ibfast."):
                assert not any(part.startswith("_") for part in name.split(".")), f"{module} imports {name}"


def test_the_simulator_shares_no_code_with_the_client_it_answers() -> None:
    """It is the other side of the wire: no decoder, no feed, no session of ours in it."""
    client = {"ibfast", "ibfast.feed.feed", "ibfast.feed.ring", "ibfast.feed.segment", "ibfast._core"} | ABOVE_THE_FEED
    assert not reached_from(*within("ibfast.sim")) & client


def test_nothing_below_imports_the_manager() -> None:
    faces = {name for name, path in PYTHON.items() if path.name == "__init__.py"}
    importers = {name for name, names in IMPORTS.items() if "ibfast.connection.manager" in names} - faces
    assert importers <= {
        "ibfast", "ibfast.commands.main", "ibfast.commands.demo", "ibfast.connection.pool", "ibfast.engine",
        "ibfast.client.provider", "ibfast.commands.serve",
    }  # fmt: skip


STREAM_CLIENT = {
    "ibfast.client.protocol",
    "ibfast.client.requests",
    "ibfast.client.session",
    "ibfast.client.rows",
    "ibfast.client.updates",
}


def test_a_stream_s_client_is_sans_io_and_knows_of_the_server_its_codec_alone() -> None:
    for module in STREAM_CLIENT:
        assert not roots(IMPORTS[module]) & (NETWORK | CLOCKS), module
    reached = reached_from(*STREAM_CLIENT)
    assert {name for name in reached if name.startswith("ibfast.fanout")} <= {
        "ibfast.codec.spec", "ibfast.codec.positions",
    }  # fmt: skip
    assert not reached & {"ibfast.connection.manager", "ibfast.feed.feed", "ibfast.feed.ring"}


def test_the_socket_of_a_stream_s_client_is_one_file_s_business() -> None:
    importers = {name for name, names in IMPORTS.items() if "websockets" in roots(names)}
    assert {name for name in importers if not name.startswith("ibfast.fanout")} == {"ibfast.client.socket"}


HAS_A_CLOCK = {"ibfast.policy.reconnect.breaker"}
"""Usable on its own, as decorator and context manager: its clock is the default of a parameter."""


@pytest.mark.parametrize("module", within("ibfast.policy"))
def test_policies_are_pure(module: str) -> None:
    assert not roots(IMPORTS[module]) & (NETWORK | {"logging", "sqlite3"})
    assert not roots(IMPORTS[module]) & CLOCKS or module in HAS_A_CLOCK
    assert not reached_from(module) & ABOVE_THE_FEED


FANOUT_ADAPTERS = {
    "ibfast.fanout.bell", "ibfast.fanout.connection", "ibfast.fanout.queries", "ibfast.fanout.server",
    "ibfast.fanout.access.tls", "ibfast.fanout.session", "ibfast.commands.token", "ibfast.fanout.turns",
    "ibfast.fanout.upstream", "ibfast.fanout.sockets.broadcaster",
}  # fmt: skip
"""They act: on sockets, at the gateway, in turns of the loop, on the command line."""


@pytest.mark.parametrize("module", within("ibfast.fanout"))
def test_the_fanout_is_pure_but_for_its_adapters(module: str) -> None:
    if module not in FANOUT_ADAPTERS:
        assert not roots(IMPORTS[module]) & (NETWORK | CLOCKS)
    if module not in {"ibfast.fanout.connection", "ibfast.fanout.server"}:
        assert "websockets" not in roots(IMPORTS[module])


def test_only_who_has_jwts_waits_for_their_library() -> None:
    importers = {name for name, names in IMPORTS.items() if roots(names) & {"jwt", "cryptography"}}
    assert importers == {"ibfast.fanout.access.jwt"}
    program = "import ibfast, ibfast.fanout.access.token_files, sys; print('jwt' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


def test_what_writes_to_sockets_knows_nothing_of_what_it_writes() -> None:
    for module in ("ibfast.fanout.sockets._broadcast", "ibfast.fanout.sockets.broadcaster"):
        assert {name for name in IMPORTS[module] if name.startswith("ibfast.")} <= {"ibfast.fanout.sockets._broadcast"}


def test_the_fanout_meets_the_session_at_the_feed() -> None:
    """What it wants of a session, it says itself: it imports neither manager nor pool."""
    session = {
        "ibfast.connection.manager",
        "ibfast.connection.pool",
        "ibfast.connection.supervisor",
        "ibfast.connection.transport",
        "ibfast.connection.protocol",
    }
    assert not reached_from(*within("ibfast.fanout")) & session


def test_nothing_imports_the_package_as_a_whole_but_the_commands() -> None:
    importers = {name for name, names in IMPORTS.items() if "ibfast" in names}
    assert importers <= {"ibfast.commands.main", "ibfast.commands.demo", "ibfast.commands.serve", "ibfast.__main__"}


def test_there_is_no_cycle() -> None:
    for module in IMPORTS:
        assert module not in reached_from(module) or module in TYPE_ONLY_CYCLES, f"{module} imports itself"


TYPE_ONLY_CYCLES = {
    "ibfast.sim.gateway", "ibfast.sim.session", "ibfast.sim.desk", "ibfast.connection.error_actions",
    "ibfast.connection.supervisor",
}  # fmt: skip
"""They name each other for type checkers; nothing of it happens at run time."""


def test_the_package_imports_no_optional_library_at_once() -> None:
    optional = {"pandas", "polars", "pyarrow", "ibapi", "ib_async", "pytest", "hypothesis"}
    for module, path in PYTHON.items():
        at_once = {
            alias.name if isinstance(node, ast.Import) else node.module or ""
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not roots(at_once) & optional, module
        known = sys.stdlib_module_names | {
            "cryptography",
            "ibfast",
            "jwt",
            "numpy",
            "orjson",
            "prometheus_client",
            "rich",
            "uvloop",
            "websockets",
            "__future__",
        }
        assert roots(at_once) <= known, module


ALONE = """
import importlib, os, sys, traceback

for name in ("jwt", "numpy", "orjson", "prometheus_client", "rich.live", "uvloop", "websockets.asyncio.server"):
    importlib.import_module(name)
assert not any(name.partition(".")[0] == "ibfast" for name in sys.modules)
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            print(f"{name} alone:", traceback.format_exc(), flush=True)
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_module_can_be_imported_alone() -> None:
    """Each in a process that has imported no other one; what others have made is there already, to save time."""
    modules = sorted((set(PYTHON) | COMPILED) - {"ibfast.__main__"})
    command = [sys.executable, "-W", "error", "-c", ALONE, *modules]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == "done\n"
