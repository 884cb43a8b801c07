"""What every test has: the loops to run on, and no deadline on a machine that others share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support.loops import new_loop, run

__all__ = ["new_loop", "run"]

# How fast an example is made and run is a matter of the machine: no test fails for it.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
