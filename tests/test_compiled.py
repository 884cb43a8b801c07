"""What the sources of the compiled code must keep to, so that it stays fast: read from the .pyx and .pxd files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ibfast

SOURCES = sorted([*Path(ibfast.__file__).parent.glob("*.pyx"), *Path(ibfast.__file__).parent.glob("*.pxd")])
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
    assert len(NOGIL_FUNCTION.findall(Path(SOURCES[0].parent, "_number.pxd").read_text())) > 5
