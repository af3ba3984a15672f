"""What each connection of the storm does and suffers: both ends derive it from the seed and the connection's number.

A connection's first eight bytes are its number; what follows, both ways, is a pattern that is its own, so that a byte
that is lost, doubled, swapped or somebody else's shows.
"""

from __future__ import annotations

import dataclasses
import functools
import random

HEADER = 8  # bytes
PERIOD = 65_521  # a prime: a piece that slips by any power of two does not fit
LARGEST = 18  # log2 of the most bytes of one direction

# How a connection is made and served. "out" is dialled by the loop, and served as the others are.
ENTRANCES = {"protocol": 8, "buffered": 4, "streams": 4, "raw": 2, "unix": 3, "tls": 1, "out": 4}
# What the peer does. The first three end in order; "drop" closes with bytes unread, "torn" resets at once.
FATES = {"orderly": 9, "slow": 2, "stall": 2, "reset": 3, "drop": 2, "silent": 1, "torn": 2}
# What the loop's side does. "hesitate" pauses reading now and then, "cancel" has its task cancelled.
BEHAVIOURS = {"orderly": 16, "hesitate": 4, "abort": 2, "close": 2, "raise": 1, "cancel": 2}
COMPLETE_FATES = {"orderly", "slow", "stall"}
COMPLETE_BEHAVIOURS = {"orderly", "hesitate"}


@dataclasses.dataclass(frozen=True)
class Plan:
    number: int
    entrance: str
    fate: str
    behaviour: str
    up: int
    """Bytes that the peer sends after the header."""
    down: int
    """Bytes that it gets if all goes well."""
    is_echo: bool
    """Whether those are its own, each sent back as it comes; else all are sent for the header."""
    at: int
    """How many bytes the peer has sent when its fate comes."""
    served_at: int
    """How many bytes have been received when the loop's side does what it is to do."""
    linger_s: float
    """How long the peer stays before it ends."""

    @property
    def is_complete(self) -> bool:
        """Whether all bytes must arrive, if nobody else has a hand in it."""
        return self.fate in COMPLETE_FATES and self.behaviour in COMPLETE_BEHAVIOURS


def chosen(random_: random.Random, weights: dict[str, int]) -> str:
    return random_.choices(list(weights), list(weights.values()))[0]


def plan_of(seed: int, number: int) -> Plan:
    random_ = random.Random(f"{seed}:{number}")
    up = int(2 ** random_.uniform(0, LARGEST))
    is_echo = random_.random() < 0.7
    return Plan(
        number=number,
        entrance=chosen(random_, ENTRANCES),
        fate=chosen(random_, FATES),
        behaviour=chosen(random_, BEHAVIOURS),
        up=up,
        down=up if is_echo else int(2 ** random_.uniform(0, LARGEST)),
        is_echo=is_echo,
        at=random_.randrange(up + 1),
        served_at=random_.randrange(up + 1),
        linger_s=random_.choice((0.0, random_.uniform(0, 2), random_.uniform(2, 6))),
    )


@functools.cache
def block(seed: int) -> bytes:
    """Two periods of the pattern."""
    return random.Random(f"{seed}:block").randbytes(PERIOD) * 2


def piece(seed: int, number: int, offset: int, size: int) -> bytes:
    """size bytes of a connection's pattern, from offset on."""
    pieces = []
    while size > 0:
        start = (number * 7919 + offset) % PERIOD
        taken = block(seed)[start : start + min(size, PERIOD)]
        pieces.append(taken)
        offset += len(taken)
        size -= len(taken)
    return b"".join(pieces)
