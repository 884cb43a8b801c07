"""Fuzzing of the decoder: `fuzz/run.sh SECONDS` with sanitizers and coverage, `tests/test_fuzz.py` without."""
