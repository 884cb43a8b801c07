"""Up to where a client has everything: positions, and the epochs within which they mean something.

The rule of the file: values only. A position names its class, and an epoch all that a position depends on, so that a
pair that does not belong together is found out by looking at the pair.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = ["CLASSES", "Epoch", "class_of", "position_of", "seq_of"]

CLASSES = 16
"""Classes of channels; a position is CLASSES · seq + class."""

SEPARATOR = "-"


def position_of(seq: int, interval_class: int) -> int:
    """Return the position of a class whose channels have everything up to a sequence number."""
    return CLASSES * seq + interval_class


def class_of(position: int) -> int:
    """Return the class for which a position speaks."""
    return position % CLASSES


def seq_of(position: int) -> int:
    """Return the sequence number up to which the channels of its class have everything."""
    return position // CLASSES


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a position of a channel depends on; as a text it is what clients are given, and give back.

    Attributes:
        life: of the server; it starts its sequence numbers anew.
        generation: of the requests at the gateway that the rows come from.
        asked: tells apart what clients ask for: `Channel.fingerprint` of the channel with the interval asked for.
        coded: the class in which the channel comes.
        since_seq: the channel begins after this sequence number.
    """

    life: str
    generation: int
    asked: int
    coded: int
    since_seq: int

    def __str__(self) -> str:
        return SEPARATOR.join(
            (self.life, *(format(number, "x") for number in (self.generation, self.asked, self.coded, self.since_seq)))
        )

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the epoch that a text names; None: no server gave that text."""
        life, *numbers = text.split(SEPARATOR)
        try:
            generation, asked, coded, since_seq = (int(number, 16) for number in numbers)
        except ValueError:
            return None
        return cls(life, generation, asked, coded, since_seq)
