"""The entry point under atheris: run by run.sh with the sanitized extensions on the path."""

import sys

import atheris

from fuzz.target import check

if __name__ == "__main__":
    atheris.Setup(sys.argv, check, enable_python_coverage=False)
    atheris.Fuzz()
