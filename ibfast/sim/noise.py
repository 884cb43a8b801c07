"""Noise that depends on nothing but its key and its place: what makes the simulated market the same at every look.

The rule of the file: pure functions; no state, no random generator.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ibfast.sim.greeks import YEAR_S

__all__ = ["mix", "noise", "walk"]

_OCTAVES = 21
_OCTAVE_STRENGTH = 0.46
"""Makes the variance of a step over a time τ about σ²τ."""
_PIECE = 4096


def walk(key: int, at_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the log value at each time, in units of one year's standard deviation."""
    # In pieces, since twenty tables of all the times would not fit any cache.
    pieces = [_walk_piece(key, at_s[start : start + _PIECE]) for start in range(0, len(at_s), _PIECE)]
    return np.concatenate(pieces) if pieces else np.empty(0)


def _walk_piece(key: int, at_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    octaves = np.arange(_OCTAVES, dtype=np.uint64)
    scale = np.exp2(np.arange(_OCTAVES))
    position = at_s[:, None] / scale[None, :]
    left = np.floor(position)
    weight = position - left
    before = _noise_at(key, left.astype(np.int64), octaves)
    after = _noise_at(key, left.astype(np.int64) + 1, octaves)
    strength = _OCTAVE_STRENGTH * np.sqrt(scale / YEAR_S)
    walked: npt.NDArray[np.float64] = ((before * (1 - weight) + after * weight) * strength).sum(axis=1)
    return walked


def noise(key: int, places: npt.NDArray[np.int64], octave: int) -> npt.NDArray[np.float64]:
    """Return noise of mean 0 and variance 1 at each place; every octave is another sequence."""
    return _noise_at(key, places, np.array(octave, dtype=np.uint64))


def _noise_at(key: int, places: npt.NDArray[np.int64], octaves: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return noise of mean 0 and variance 1 for each place and octave: the finaliser of splitmix64."""
    x = places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + octaves * np.uint64(0xD1B54A32D192ED03)
    x ^= np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    values: npt.NDArray[np.float64] = (x.astype(np.float64) / 2.0**63 - 1.0) * math.sqrt(3.0)
    return values


def mix(x: int) -> int:
    """Return 64 well-mixed bits of `x` (splitmix64)."""
    mask = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
    return x ^ (x >> 31)
