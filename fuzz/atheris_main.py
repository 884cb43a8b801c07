"""The entry point under atheris, for the target that is named first: run by run.sh, with sanitized extensions."""

import importlib
import sys

import atheris

if __name__ == "__main__":
    target = importlib.import_module(f"fuzz.{sys.argv.pop(1)}")
    atheris.Setup(sys.argv, target.check, enable_python_coverage=False)
    atheris.Fuzz()
