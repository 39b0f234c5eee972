"""Programs that write and draw one ring until they are killed; they print what they have done."""

import itertools

import numpy as np

from sqlbuffer.integrations.slots import Slots

SIZE = 40


def rate_of(at: int) -> float:
    """Return the rate that the learner gives to one sample and to no other."""
    return 1 / (at + 2)


def act(url: str) -> None:
    """Write the samples 0, 1, 2, ...; print how many are stored."""
    slots = Slots(url, max_size=SIZE)
    for n in itertools.cycle([1, 7, 3]):
        first = slots.cursor.writes
        slots.append([{"at": first + i} for i in range(n)])
        print(first + n, flush=True)


def learn(url: str) -> None:
    """Draw samples, and give the odd ones their rates; print how many updates were made.

    The even ones keep the highest rate, 1, for new samples.
    """
    slots = Slots(url, max_size=SIZE)
    for n in itertools.count(1):
        picked = slots.draw(8)
        found = picked.samples.stacked()["at"]
        rates = np.array([rate_of(at) for at in found.tolist()])
        slots.update(picked.slots[found % 2 == 1].tolist(), rates[found % 2 == 1])
        print(n, flush=True)
