"""A crew that works on one buffer while its members are killed at random, and the books that it
keeps.

Each member is a process of its own and writes down what the store has acknowledged. In the end the
books must agree with the tables.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import random
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess

import numpy as np
import sqlalchemy as sa

from helpers import inside
from helpers.forked import forkserver
from sqlbuffer import SampleStore, open_store
from sqlbuffer.cli.claims import find_claims, release_batches
from sqlbuffer.db.schema import batches, draws, predictors, samples
from sqlbuffer.errors import ClaimLost, DatabaseUnavailable

N_DISTINCT = 20_000
ROOM = 3_000
"""Samples that wait, at the most."""

Note = Callable[..., None]


def reward_of(sample: str) -> float:
    """What an experiment measures, any process that does it."""
    return float(sample[1:]) / 7


def predicted(texts: list[str]) -> np.ndarray:
    """A score that changes from call to call, so that a refresh has something to move."""
    return np.array([float(text[1:]) % 101 for text in texts]) * random.uniform(0.5, 2.0)


# -- what a member does ----------------------------------------------------------------------------


def generate(store: SampleStore, note: Note) -> None:
    """Add samples, many of which are there already: some wait, some are claimed, some have been
    measured.
    """
    if len(store) < ROOM:
        added = [f"s{random.randrange(N_DISTINCT)}" for _ in range(40)]
        store.add(added, source="generator", requeue=True)
        note("added", *added)


def settle(store: SampleStore, note: Note) -> None:
    """Measure batches as a whole."""
    batch = store.sample(16, pct_argmax=0.25)
    if not len(batch):
        return
    time.sleep(random.uniform(0, 0.1))
    try:
        batch.settle([reward_of(sample) for sample in batch.samples])
        note("settled", batch.id)
        note("measured", *batch.samples)
    except ClaimLost:
        note("lost", batch.id)
        note("measured", *batch.samples)


def report(store: SampleStore, note: Note) -> None:
    """Measure batches in parts, and now and then leave the rest to others."""
    batch = store.sample(8)
    try:
        for i in range(0, len(batch), 2):
            part = slice(i, i + 2)
            left = batch.report(
                batch.ids[part], [reward_of(sample) for sample in batch.samples[part]]
            )
            note("measured", *batch.samples[part])
            time.sleep(random.uniform(0, 0.02))
            if left and random.random() < 0.05:
                batch.release()
                return
        if len(batch):
            note("settled", batch.id)
    except ClaimLost:
        note("lost", batch.id)


def meddle(store: SampleStore, note: Note) -> None:
    """Give back the batches of others, who go on with them in good faith."""
    time.sleep(random.uniform(0.2, 1.0))
    buffer = inside.handle_of(store)
    taken = buffer.read(find_claims)
    if taken:
        with contextlib.suppress(ClaimLost):  # it was settled just now
            note("meddled", release_batches([buffer], [random.choice(taken)["batch"]]))


def train(store: SampleStore, note: Note) -> None:
    """Score what is new; retrain now and then, and refresh all scores."""
    for _ in range(20):
        store.score(predicted, chunk=200)
        time.sleep(0.05)
    note("trained", store.save_predictor(os.urandom(2000), rows_trained=store.stats().measured))
    store.score(predicted, only="stale", chunk=500)
    note("refreshed")


Act = Callable[[SampleStore, Note], None]

CREW: list[Act] = [generate, generate, settle, settle, report, meddle, train, train]


def live(act: Act, url: str, journal: str) -> None:
    """Work until killed."""
    book = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store = None
    while store is None:
        with contextlib.suppress(DatabaseUnavailable):  # the server is down just now
            store = open_store(url)
    while True:
        act(store, lambda *words: os.write(book, f"{' '.join(map(str, words))}\n".encode()))
        time.sleep(random.uniform(0.01, 0.05))


# -- who kills and hires them ----------------------------------------------------------------------


@dataclasses.dataclass
class Figures:
    """What a soak has come to."""

    seconds: float = 0
    kills: int = 0
    restarts: int = 0
    stored: int = 0
    draws: int = 0
    requeued: int = 0
    settled: int = 0
    released: int = 0
    claims_lost: int = 0
    predictors: int = 0


def soak(
    url: str,
    folder: pathlib.Path,
    *,
    seconds: float,
    restart: Callable[[], None] | None = None,
    every_s: tuple[float, float] = (20, 40),
    most: int | None = None,
) -> Figures:
    """Let a crew work, kill a member every few seconds, and compare the books; return the figures.

    Args:
        url: The database.
        folder: Where the books are kept.
        seconds: How long they work.
        restart: Restarts the server.
        every_s: How long after the last time, at least and at most.
        most: End when it was restarted so often.
    """
    kills, restarts = let_work(
        CREW, url, folder, seconds=seconds, restart=restart, every_s=every_s, most=most
    )
    figures = Figures(seconds=seconds, kills=kills, restarts=restarts)
    audit(url, folder, figures)
    return figures


def let_work(
    crew: Sequence[Act],
    url: str,
    folder: pathlib.Path,
    *,
    seconds: float,
    restart: Callable[[], None] | None = None,
    every_s: tuple[float, float] = (20, 40),
    most: int | None = None,
) -> tuple[int, int]:
    """Let a crew work, each member in a process that is killed and replaced again and again.

    For other arguments see `soak`.

    Args:
        crew: What each member does, over and over.
        url: The database.
        folder: Where the books are kept, a file for each member.

    Returns:
        The numbers of kills and of restarts.
    """
    kills = restarts = 0
    places = [(act, str(folder / f"{i} {act.__name__}")) for i, act in enumerate(crew)]
    with contextlib.ExitStack() as stack:
        members = [hire(stack, url, *place) for place in places]
        start = time.monotonic()
        next_restart = start + random.uniform(*every_s)
        while time.monotonic() < start + seconds and restarts != most:
            time.sleep(random.uniform(0.5, 3.0))
            if restart is not None and time.monotonic() > next_restart:
                restart()
                restarts += 1
                next_restart = time.monotonic() + random.uniform(*every_s)
            assert all(member.is_alive() for member in members), "only a kill ends a member"
            i = random.randrange(len(members))
            kill(members[i])
            kills += 1
            members[i] = hire(stack, url, *places[i])
    return kills, restarts


def hire(stack: contextlib.ExitStack, url: str, act: Act, journal: str) -> BaseProcess:
    """Start a member, who does not outlive the soak."""
    member = forkserver().Process(target=live, args=(act, url, journal))
    member.start()
    stack.callback(kill, member)
    return member


def kill(member: BaseProcess) -> None:
    """End a process as the power would."""
    member.kill()
    member.join()


# -- the books -------------------------------------------------------------------------------------


def audit(url: str, folder: pathlib.Path, figures: Figures) -> None:
    """Compare what was acknowledged with what is stored: nothing lost, nothing settled twice."""
    books = collections.defaultdict(list)
    for journal in folder.iterdir():
        for line in journal.read_text().splitlines():
            verb, *words = line.split()
            books[verb] += words
    with open_store(url) as store:
        assert store.check() == []
        assert store.stats().claimed == 0, "what the dead had claimed waits again"
        drain(store)
        assert store.check() == []
        stats = store.stats()
        with inside.engine_of(store, "reader").begin() as connection:
            stored = {row.text: row for row in connection.execute(sa.select(samples))}
            ends = {row.id: row for row in connection.execute(sa.select(batches))}
            versions = set(connection.scalars(sa.select(predictors.c.version)))
            taken = collections.Counter(
                connection.scalars(
                    sa.select(draws.c.sample_id)
                    .join(batches, batches.c.id == draws.c.batch_id)
                    .where(sa.or_(draws.c.reported, batches.c.settled_at.is_not(None)))
                )
            )
            given_back = collections.Counter(
                connection.scalars(
                    sa.select(draws.c.sample_id)
                    .join(batches, batches.c.id == draws.c.batch_id)
                    .where(batches.c.released_at.is_not(None), sa.not_(draws.c.reported))
                )
            )
            n_draws = connection.scalar(sa.select(sa.func.count()).select_from(draws))
    assert set(books["added"]) <= set(stored), "an acknowledged sample was lost"
    assert all(stored[text].reward == reward_of(text) for text in books["measured"]), (
        "an acknowledged reward was lost"
    )
    assert all(row.reward == reward_of(text) for text, row in stored.items())
    wrong = {
        text: (taken[row.id], 1 + row.requeues, given_back[row.id])
        for text, row in stored.items()
        # The reward of a lost batch is late, and ends the stay of a sample that waits again.
        if not 0 <= 1 + row.requeues - taken[row.id] <= given_back[row.id]
    }
    assert not wrong, "each stay in the pool ends with one reward"
    settled, lost = (list(map(int, books[verb])) for verb in ("settled", "lost"))
    assert len(settled) == len(set(settled))
    assert all(ends[i].settled_at is not None and ends[i].released_at is None for i in settled)
    assert all(ends[i].released_at is not None and ends[i].settled_at is None for i in lost)
    assert set(map(int, books["trained"])) <= versions
    figures.stored, figures.requeued, figures.draws = len(stored), stats.requeued, n_draws or 0
    figures.settled = sum(row.settled_at is not None for row in ends.values())
    figures.released = len(ends) - figures.settled
    assert stats.measured
    figures.claims_lost, figures.predictors = len(lost), len(versions)


def drain(store: SampleStore) -> None:
    """Measure whatever waits."""
    store.score(predicted)
    while len(store):
        with store.sample(500) as batch:
            batch.settle([reward_of(sample) for sample in batch.samples])
