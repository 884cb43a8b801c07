"""What the compiled code must keep to: its sources, to stay fast, and the modules built of them, to be hardened."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ibfast

PACKAGE = Path(ibfast.__file__).parent
SOURCES = sorted([*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])
NOGIL_FUNCTION = re.compile(r"^( *)cdef [^\n]*\([^()]*(?:\([^()]*\)[^()]*)*\)[^\n:]*\bnogil:\n", re.MULTILINE)
WITH_GIL = re.compile(r"^ *with gil:", re.MULTILINE)


def functions_with_both(source: str) -> list[str]:
    """Return the heads of the nogil functions that hold a `with gil` block."""
    found = []
    for head in NOGIL_FUNCTION.finditer(source):
        end = re.compile(rf"^ {{0,{len(head[1])}}}\S", re.MULTILINE).search(source, head.end())
        if WITH_GIL.search(source, head.end(), end.start() if end else len(source)):
            found.append(head[0].strip())
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_nogil_function_takes_the_gil_in_a_block(path: Path) -> None:
    """Cython would acquire the GIL again at every exit of it, for its Python locals, whether or not the block ran.

    What needs the interpreter is a function of its own, `noexcept with gil`, that is called where it is needed.
    """
    assert functions_with_both(path.read_text()) == []


def test_such_a_function_would_be_found() -> None:
    source = """
cdef class Parser:
    cdef int parse(self, const char *p,
                   int (*other)(int)) noexcept nogil:
        if p == NULL:
            with gil:
                return 0
        return 1

    cdef int safe(self) noexcept nogil:
        return 1

cdef int rare(int n) noexcept with gil:
    with nogil:
        return n

cdef int number(const char *p, double *out) noexcept nogil:
    cdef int status = 1

    with gil:
        return status
"""
    assert [head.split("(")[0] for head in functions_with_both(source)] == ["cdef int parse", "cdef int number"]
    assert len(NOGIL_FUNCTION.findall(next(PACKAGE.rglob("_number.pxd")).read_text())) > 5


MODULES = sorted(PACKAGE.rglob("*.so"))


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("readelf"), reason="needs readelf")
@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name.partition(".")[0])
def test_modules_are_hardened(path: Path) -> None:
    """Their relocations are read-only once they are loaded, and an overflow of the stack ends the process."""
    command = ["readelf", "--wide", "--dynamic", "--program-headers", "--dyn-syms", path]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "BIND_NOW" in shown
    assert "GNU_RELRO" in shown
    assert "__stack_chk_fail" in shown


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("readelf"), reason="needs readelf")
def test_copies_of_known_size_are_checked() -> None:
    """FORTIFY is on: at least one module calls a checked function of the C library, where that has them (glibc)."""
    shown = [
        subprocess.run(["readelf", "--wide", "--dyn-syms", path], capture_output=True, text=True, check=True).stdout
        for path in MODULES
    ]
    assert MODULES
    if not any("GLIBC" in symbols for symbols in shown):
        pytest.skip("another C library")
    assert any(re.search(r"__(?!stack)[a-z]+_chk", symbols) for symbols in shown)
