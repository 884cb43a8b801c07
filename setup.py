"""Compiled modules of ibfast; everything else stands in pyproject.toml.

IBFAST_DEBUG=1 turns every check of Cython back on and the optimiser off.
"""

import os
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("IBFAST_DEBUG") == "1"
# The decoder is made of small inline functions on a cursor: the compiler's own limits would leave half of them calls.
MACROS = [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
if sys.platform != "win32" and not DEBUG:
    MACROS.append(("CYTHON_INLINE", "__inline__ __attribute__((always_inline))"))
COMPILE_ARGS = [] if sys.platform == "win32" else (["-O0", "-g"] if DEBUG else ["-O3"])
LINK_ARGS = []
# The decoder reads bytes from a network: an overflow that slips through must end the process. MSVC checks by default;
# only ELF linkers know the two options of the linker.
if sys.platform != "win32":
    COMPILE_ARGS.append("-fstack-protector-strong")
    # It needs the optimiser, and hides calls from the sanitizers.
    if not DEBUG and "-fsanitize" not in os.environ.get("CFLAGS", ""):
        COMPILE_ARGS += ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
if sys.platform == "linux":
    LINK_ARGS += ["-Wl,-z,relro", "-Wl,-z,now"]
DIRECTIVES = {
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": not DEBUG,
    "initializedcheck": DEBUG,
    "overflowcheck": False,
    "freethreading_compatible": False,
}

setup(
    ext_modules=cythonize(
        [
            Extension(
                ".".join(path.with_suffix("").parts),
                [str(path)],
                define_macros=MACROS,
                extra_compile_args=COMPILE_ARGS,
                extra_link_args=LINK_ARGS,
                include_dirs=[numpy.get_include()],
            )
            # The largest first: the others are compiled beside it.
            for path in sorted(Path("ibfast").rglob("*.pyx"), key=lambda path: -path.stat().st_size)
        ],
        compiler_directives=DIRECTIVES,
    ),
    options={"build_ext": {"parallel": os.cpu_count()}},
)
