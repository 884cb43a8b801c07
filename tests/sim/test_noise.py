"""Noise that is the same at every look, and has the moments that it promises."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ibfast.sim.greeks import YEAR_S
from ibfast.sim.noise import mix, noise, walk

START_S = 1_795_445_640.0


@given(st.lists(st.floats(0, 4e9), max_size=50), st.integers(0, 2**64 - 1))
def test_a_value_depends_on_its_time_alone(times: list[float], key: int) -> None:
    together = walk(key, np.array(times))
    assert together.tolist() == [float(walk(key, np.array([at_s]))[0]) for at_s in times]


def test_many_times_are_as_good_as_few() -> None:
    times = START_S + np.arange(10_000.0)
    assert walk(7, times)[9_990:].tolist() == walk(7, times[9_990:]).tolist()


def test_steps_grow_like_those_of_a_brownian_motion() -> None:
    for step_s in (10.0, 1000.0):
        values = np.concatenate([np.diff(walk(key, START_S + np.arange(200) * step_s)) for key in range(20)])
        assert 0.6 < values.var() / (step_s / YEAR_S) < 1.6


def test_noise_has_mean_0_and_variance_1() -> None:
    values = noise(3, np.arange(100_000), 5)
    assert abs(values.mean()) < 0.02
    assert 0.97 < values.var() < 1.03
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(values, noise(3, np.arange(100_000), 6))[0, 1]) < 0.02


def test_mixing_spreads_neighbours_over_all_bits() -> None:
    mixed = [mix(number) for number in range(1000)]
    assert len(set(mixed)) == 1000
    assert all(0 <= value < 2**64 for value in mixed)
    ones = sum(value.bit_count() for value in mixed) / 1000
    assert 31 < ones < 33
