"""An actor and a learner on one replay buffer, killed at random, and the books that they keep.

The priority of a transition tells its number, so that a priority on a wrong row is seen, and the
update that has written it.
"""

import dataclasses
import pathlib
import random

import numpy as np

from helpers.pool import assert_weights_are_those_of_the_scores
from helpers.soak import Note, let_work
from sqlbuffer import SampleStore, open_store

N_AT_ONCE = 16
N_DRAWN = 32
UPDATES = 1 << 20


def transition(number: int) -> dict[str, object]:
    return {"step": number, "state": np.full(4, number, np.float32), "done": number % 7 == 0}


def priorities(numbers: np.ndarray, update: int) -> np.ndarray:
    """1 to 2: 20 bits of the number, and 20 of the update; 0 is that of the actor."""
    return 1.0 + (numbers + update / UPDATES) / UPDATES


def numbers_and_updates(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    told = ((scores - 1.0) * UPDATES * UPDATES).astype(np.int64)
    return told // UPDATES, told % UPDATES


def first_priorities(transitions: list[dict[str, int]]) -> np.ndarray:
    return priorities(np.array([each["step"] for each in transitions]), 0)


def act(store: SampleStore, note: Note) -> None:
    """Store the next transitions, and give them priorities."""
    first = store.stats().stored
    store.add([transition(first + i) for i in range(N_AT_ONCE)])
    note("added", first, first + N_AT_ONCE)
    store.score(first_priorities)


def learn(store: SampleStore, note: Note) -> None:
    """Draw, write priorities, also those of samples of earlier batches; now and then release."""
    batch, update = store.sample(N_DRAWN), random.randrange(1, UPDATES)
    if not len(batch):
        return
    numbers = batch.stacked()["step"]
    note("begun", update, *numbers)
    way = random.random()
    if way < 0.3:
        batch.settle(priorities=priorities(numbers, update))
        note("done", update, len(batch))
        return
    is_late = way > 0.7
    if is_late:
        batch.settle()
    if random.random() < 0.3:
        n = store.update_priorities(batch.ids, priorities(numbers, update))
    else:
        n = batch.update_priorities(priorities(numbers, update))
    note("done", update, n)
    assert n == len(batch)
    if not is_late:
        batch.release() if random.random() < 0.1 else batch.settle()


@dataclasses.dataclass
class ReplayFigures:
    """What a soak has come to."""

    seconds: float
    kills: int
    transitions: int = 0
    batches: int = 0
    updates: int = 0
    unknown: int = 0
    """Updates of which the learner was killed before it knew whether they were stored."""


def soak_replay(url: str, folder: pathlib.Path, *, seconds: float) -> ReplayFigures:
    """Let an actor and a learner work, kill one every few seconds, and compare the books."""
    kills, _ = let_work([act, learn], url, folder, seconds=seconds)
    figures = ReplayFigures(seconds, kills)
    actor, learner = (
        [line.split() for line in (folder / name).read_text().splitlines()]
        for name in ("0 act", "1 learn")
    )
    with open_store(url) as store:
        store.score(first_priorities)  # of what a killed actor has left
        assert store.check() == []
        assert store.stats().claimed == 0, "what the dead had claimed is released"
        assert_weights_are_those_of_the_scores(store)
        waiting = store.waiting()
        samples = store.samples_of(waiting.ids)
        figures.batches = store.stats().iteration
    numbers = [samples[i]["step"] for i in waiting.ids.tolist()]
    assert sorted(numbers) == list(range(len(numbers))), "each transition is stored once"
    assert len(numbers) >= max(int(end) for _, _, end in actor), "a transition was lost"
    for sample in samples.values():
        assert repr(sample) == repr(transition(sample["step"]))
    of, updates = numbers_and_updates(waiting.scores)
    assert of.tolist() == numbers, "a priority is on a wrong row"
    possible = possible_updates(learner, figures)
    wrong = {
        number: (update, possible.get(number))
        for number, update in zip(numbers, updates.tolist(), strict=True)
        if update not in possible.get(number, {0})
    }
    assert not wrong, "an acknowledged priority was lost"
    figures.transitions = len(numbers)
    return figures


def possible_updates(journal: list[list[str]], figures: ReplayFigures) -> dict[int, set[int]]:
    """Return the updates that a transition may have its priority of: the last that is known to be
    stored, and those after it of which the learner was killed in the middle.
    """
    possible: dict[int, set[int]] = {}
    for place, (verb, update, *numbers) in enumerate(journal):
        if verb == "done":
            continue
        is_known = place + 1 < len(journal) and journal[place + 1][0] == "done"
        figures.updates, figures.unknown = figures.updates + 1, figures.unknown + (not is_known)
        for number in map(int, numbers):
            before = set() if is_known else possible.get(number, {0})
            possible[number] = before | {int(update)}
    return possible
