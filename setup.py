"""Compiled modules of ibfast; everything else stands in pyproject.toml.

IBFAST_DEBUG=1 turns every check of Cython back on and the optimiser off.
"""

import os
import sys

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("IBFAST_DEBUG") == "1"
# The decoder is made of small inline functions on a cursor: the compiler's own limits would leave half of them calls.
MACROS = [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
if sys.platform != "win32" and not DEBUG:
    MACROS.append(("CYTHON_INLINE", "__inline__ __attribute__((always_inline))"))
COMPILE_ARGS = [] if sys.platform == "win32" else (["-O0", "-g"] if DEBUG else ["-O3"])
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
                f"ibfast.{name}",
                [f"ibfast/{name}.pyx"],
                define_macros=MACROS,
                extra_compile_args=COMPILE_ARGS,
                include_dirs=[numpy.get_include()],
            )
            for name in ("_ring", "_feed", "_core", "_broadcast", "_state", "_rows", "_frames", "_delta", "_audience")
        ],
        compiler_directives=DIRECTIVES,
    ),
)
