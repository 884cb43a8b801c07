"""Who may import whom: the import graph of the package, read from its sources.

A folder is a layer: its modules import from their own folder and from layers below it. A module whose docstring has the
sentence `PURE` does no I/O and knows no clock and no asyncio, as far as its imports tell.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys

import pytest

from tests.support.graph import (
    COMPILED,
    CYTHON,
    IMPORTS,
    LAYERS,
    MODULES,
    PYTHON,
    ROOT,
    VOCABULARY,
    layer_of,
    module_name,
    own,
    picture,
    reached_from,
    upwards,
)

NETWORK = {"asyncio", "socket", "selectors", "ssl", "uvloop", "websockets"}
CLOCKS = {"time"}
IO = {"sqlite3", "subprocess", "threading", "mmap"}
PURE = "No I/O, no clock, no asyncio."


def within(package: str) -> list[str]:
    return [name for name in IMPORTS if name == package or name.startswith(f"{package}.")]


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def pure_modules() -> list[str]:
    """The modules that say of themselves that they are pure, at their top."""
    heads = {name: ast.get_docstring(ast.parse(path.read_text())) or "" for name, path in PYTHON.items()}
    for path in CYTHON:
        head = re.match(r'(?:#[^\n]*\n)*("""[^"]*""")?', path.read_text())
        heads[module_name(path)] = heads.get(module_name(path), "") + (head[0] if head else "")
    return sorted(name for name, head in heads.items() if PURE in head)


def test_the_graph_was_read() -> None:
    assert {"ibfast._core", "ibfast.feed._feed", "ibfast.feed._ring"} <= COMPILED
    assert "ibfast.feed._feed" in IMPORTS["ibfast._core"]
    assert "ibfast.feed._atomic" in IMPORTS["ibfast.feed._ring"]
    assert "ibfast.connection.protocol" in IMPORTS["ibfast.connection.manager"]
    assert "ibfast.sim.desk" in reached_from("ibfast.sim.gateway")
    for names in IMPORTS.values():
        for name in own(names):
            assert name in MODULES, f"{name} is imported and not there"


def test_imports_lead_down() -> None:
    assert upwards(IMPORTS) == set()


def test_the_picture_shows_every_layer() -> None:
    lines = picture().splitlines()
    assert {line.split()[0] for line in lines[:-2]} == set().union(*LAYERS)
    assert lines[-1] == "arrows that lead up: none"


def test_an_import_that_leads_up_would_be_found() -> None:
    wrong = {
        "ibfast.errors": {"ibfast.feed.ring"},
        "ibfast.wire.text": {"ibfast.feed.feed"},
        "ibfast.fanout.server": set(),
    }
    assert upwards(wrong) == {("ibfast.errors", "ibfast.feed.ring"), ("ibfast.wire.text", "ibfast.feed.feed")}


def test_every_layer_is_there() -> None:
    assert {layer_of(module) for module in MODULES} == set().union(*LAYERS)


@pytest.mark.parametrize("module", pure_modules())
def test_what_is_pure_imports_no_io_no_clock_and_no_asyncio(module: str) -> None:
    assert not roots(IMPORTS[module]) & (NETWORK | CLOCKS | IO)


def test_modules_say_that_they_are_pure() -> None:
    """Whole folders are: the wire, the client's and the server's codec, and the policies but for one that has a
    clock."""
    pure = set(pure_modules())
    for folder in ("wire", "codec", "policy"):
        left = {name for name in within(f"ibfast.{folder}") if PYTHON.get(name, ROOT).name != "__init__.py"} - pure
        assert left <= {"ibfast.policy.reconnect.breaker"}, "usable on its own: its clock is the default of a parameter"
    assert {"ibfast._core", "ibfast.connection.protocol", "ibfast.client.protocol"} <= pure


def test_compiled_code_knows_no_loop_and_no_log() -> None:
    assert not roots(reached_from("ibfast._core", "ibfast.feed._feed")) & (NETWORK | {"threading", "logging"})


def test_policies_do_not_log() -> None:
    for module in within("ibfast.policy"):
        assert "logging" not in roots(IMPORTS[module])


def test_a_ring_knows_no_record() -> None:
    assert {name for name in own(reached_from("ibfast.feed._ring")) if layer_of(name) != VOCABULARY} == {
        "ibfast.feed._atomic"
    }


def test_the_simulator_is_imported_by_the_commands_only() -> None:
    importers = {name for name, names in IMPORTS.items() if any(layer_of(other) == "sim" for other in own(names))}
    assert {layer_of(name) for name in importers} == {"sim", "commands"}


def test_the_simulator_shares_no_code_with_the_client_it_answers() -> None:
    """It is the other side of the wire: no decoder, no feed, no session of ours in it."""
    reached = own(reached_from(*within("ibfast.sim")))
    assert {layer_of(name) for name in reached} == {"sim", "wire", VOCABULARY}
    assert not any(part.startswith("_") for name in reached for part in name.split("."))


def test_the_fanout_meets_the_session_at_the_feed() -> None:
    """What it wants of a session, it says itself: it imports neither manager nor pool."""
    session = reached_from("ibfast.connection.manager", "ibfast.connection.pool") | {"ibfast.connection.pool"}
    shared = {"ibfast.connection.stream", "ibfast.connection.historical"}
    reached = {name for name in reached_from(*within("ibfast.fanout")) if layer_of(name) == "connection"}
    assert reached & session <= shared


def test_a_stream_s_client_knows_of_the_server_its_codec_alone() -> None:
    """Only who starts a server of the own process reaches it, by the engine."""
    for module in within("ibfast.client"):
        others = {layer_of(name) for name in own(IMPORTS[module])}
        assert "fanout" not in others
        assert "engine" not in others or module == "ibfast.client.provider"


def test_the_socket_of_a_stream_s_client_is_one_file_s_business() -> None:
    importers = {name for name, names in IMPORTS.items() if "websockets" in roots(names)}
    assert {name for name in importers if layer_of(name) != "fanout"} == {"ibfast.client.socket"}
    assert {name for name in importers if layer_of(name) == "fanout"} <= {
        "ibfast.fanout.connection", "ibfast.fanout.server",
    }  # fmt: skip


def test_only_who_has_jwts_waits_for_their_library() -> None:
    importers = {name for name, names in IMPORTS.items() if roots(names) & {"jwt", "cryptography"}}
    assert importers == {"ibfast.fanout.access.jwt"}
    program = "import ibfast, ibfast.fanout.access.token_files, sys; print('jwt' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


def test_what_writes_to_sockets_knows_nothing_of_what_it_writes() -> None:
    for module in within("ibfast.fanout.sockets"):
        others = {name for name in own(IMPORTS[module]) if layer_of(name) != VOCABULARY}
        assert others <= set(within("ibfast.fanout.sockets")), module


def test_nothing_imports_a_package_as_a_whole_but_the_commands() -> None:
    """Faces are for users: who stands inside names the module."""
    packages = {name for name, path in PYTHON.items() if path.name == "__init__.py"}
    for module, names in IMPORTS.items():
        faces = names & packages
        assert not faces or layer_of(module) in {"commands", "ibfast"}, f"{module} imports {faces}"


def test_there_is_no_cycle() -> None:
    for module in IMPORTS:
        assert module not in reached_from(module), f"{module} imports itself"


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


def test_faces_show_what_type_checkers_see() -> None:
    packages = {name: path for name, path in PYTHON.items() if path.name == "__init__.py"}
    for package, path in packages.items():
        face = importlib.import_module(package)
        shown = {
            alias.name: node.module
            for branch in ast.parse(path.read_text()).body
            if isinstance(branch, ast.If)
            for node in branch.body
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        assert set(shown) == set(getattr(face, "__all__", ())), package
        assert set(shown) <= set(dir(face))
        for name, module in shown.items():
            assert getattr(face, name) is getattr(importlib.import_module(module), name)
    assert {"ibfast", "ibfast.config", "ibfast.connection", "ibfast.fanout", "ibfast.feed"} <= set(packages)


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
