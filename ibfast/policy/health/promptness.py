"""Whether messages arrive promptly or late: by the round trips of questions, and by the times that messages carry.

The rule of the file: a late message proves little, a prompt one that its way is fast. Clocks of other machines differ
by an unknown offset, so the age of a message is compared with the least age that its source has shown. The gateway's
clock may also be set, so only its latest ages count. It must not know
what is asked, nor what is done about a slow link.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from statistics import median

__all__ = ["LATE_S", "Promptness"]

# A round trip that takes so long is late in any case.
LATE_S = 2.0
# One of half a second is late if it is also so many times the usual one, twice in a row.
UNUSUAL_S, UNUSUAL_TIMES = 0.5, 10.0
USUAL_OF = 32
# Messages carry their times in whole seconds.
RESOLUTION_S = 1.0
# Data is late when none of it was prompt for so long.
PATIENCE_S = 5.0
# Without any dated data for so long, nothing is known about its age.
MEMORY_S = 30.0
# Two clocks drift apart by this share at most.
DRIFT = 1e-4


class Promptness:
    """Judges one connection after the other. `now_s` are seconds of one monotonic clock.

    Attributes:
        late_s: how late the newest late message was.
    """

    def __init__(self) -> None:
        self.late_s = 0.0
        self._usual: deque[float] = deque(maxlen=USUAL_OF)
        self.begin(-math.inf)

    def begin(self, now_s: float) -> None:
        """Begin with a new connection: which round trips are usual is known from those before."""
        self._is_answer_late = False
        self._is_unusual = False
        self._prompt_s = now_s
        self._late_at_s = -math.inf
        self._clock_ages: deque[tuple[float, float]] = deque(maxlen=USUAL_OF)
        self._sources: dict[Hashable, tuple[float, float, float]] = {}

    def waiting(self, waited_s: float) -> None:
        """Note for how long an answer is awaited already."""
        if waited_s >= LATE_S:
            self._is_answer_late, self.late_s = True, waited_s

    def answered(self, rtt_s: float) -> None:
        """Note a round trip that is known."""
        was_unusual = self._is_unusual
        self._is_unusual = rtt_s >= max(UNUSUAL_S, UNUSUAL_TIMES * median(self._usual or [LATE_S]))
        self._is_answer_late = rtt_s >= LATE_S or (self._is_unusual and was_unusual)
        if self._is_answer_late:
            self.late_s = rtt_s
        elif not self._is_unusual:
            self._usual.append(rtt_s)

    def is_prompt_time(self, time_s: float, now_s: float) -> bool:
        """Return whether the gateway's own time came promptly; for an answer whose question is not known.

        Its age is compared with the ages of the last 30 s, or with the newest age if that is older.
        """
        ages = self._clock_ages
        while len(ages) > 1 and now_s - ages[0][0] > MEMORY_S:
            ages.popleft()
        age_s = now_s - time_s
        is_prompt = bool(ages) and age_s - min(earlier_s for _, earlier_s in ages) < LATE_S
        ages.append((now_s, age_s))
        return is_prompt

    def dated(self, source: Hashable, time_s: float, now_s: float) -> None:
        """Note a message that carries its time, by the source's clock. Only one that is newer than before counts."""
        late_s = self._lateness(source, time_s, now_s)
        if late_s is None:
            return
        if late_s >= LATE_S + RESOLUTION_S:
            self._late_at_s, self.late_s = now_s, late_s
        elif late_s < LATE_S:
            self._prompt_s = now_s

    def is_slow(self, now_s: float) -> bool:
        """Return whether answers or data come late."""
        is_recent = now_s - self._late_at_s < MEMORY_S
        is_data_late = self._late_at_s > self._prompt_s and self._late_at_s - self._prompt_s >= PATIENCE_S
        return self._is_answer_late or (is_recent and is_data_late)

    def _lateness(self, source: Hashable, time_s: float, now_s: float) -> float | None:
        """Return how much older a message is than the freshest of its source; None if there is nothing to compare."""
        age_s = now_s - time_s
        if source not in self._sources:
            self._sources[source] = time_s, age_s, now_s
            return None
        newest_s, least_s, at_s = self._sources[source]
        if time_s <= newest_s:
            return None
        least_s = min(age_s, least_s + DRIFT * (now_s - at_s))
        self._sources[source] = time_s, least_s, now_s
        return age_s - least_s
