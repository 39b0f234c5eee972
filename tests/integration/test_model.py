"""A store and a plain-Python model of it are driven by the same random steps and must agree after
each of them.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from helpers import inside
from sqlbuffer.core import add, refresh
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db.schema import batches, workers
from sqlbuffer.errors import ClaimLost
from sqlbuffer.records import AddResult
from sqlbuffer.store import SampleStore, open_store

pytestmark = pytest.mark.slow

NAMES = [f"s{i}" for i in range(16)]
NAN = math.nan
FLOOR = 1e-8

names = st.lists(st.sampled_from(NAMES), max_size=8)
scores = st.one_of(
    st.sampled_from([-1e3, -1.0, 0.0, 1e-300, 0.5, 1.0, 1e6, NAN, math.inf, -math.inf]),
    st.floats(-100, 100),
)
priorities = st.lists(
    st.one_of(st.sampled_from([0.0, 1e-300, 0.5, 1.0, 1e6]), st.floats(0, 100)),
    min_size=1,
    max_size=4,
)
palettes = st.lists(scores, min_size=1, max_size=5)
rewards = st.lists(st.one_of(st.none(), st.just(NAN), st.floats(-10, 10)), min_size=1, max_size=4)
picks = st.lists(st.integers(0, 20), max_size=5)
chunks = st.sampled_from([1, 2, 3, 10_000])


@dataclasses.dataclass
class Sample:
    """What the model knows of a sample."""

    source: str
    waits: bool = False
    claimed: int = 0
    version: int | None = None
    score: float = NAN
    reward: float | None = None
    """NaN: the measurement failed."""
    requeues: int = 0

    @property
    def is_measured(self) -> bool:
        return self.reward is not None and not math.isnan(self.reward)

    def measure(self, reward: float | None) -> None:
        """A failure never replaces a reward."""
        if not (self.is_measured and reward is not None and math.isnan(reward)):
            self.reward = reward


@dataclasses.dataclass
class Model:
    """The buffer as a dict."""

    mode: str
    weighting: str
    samples: dict[str, Sample] = dataclasses.field(default_factory=dict)
    open: dict[int, list[str]] = dataclasses.field(default_factory=dict)
    requeues_at: dict[int, dict[str, int]] = dataclasses.field(default_factory=dict)
    """How often the samples of each batch had been added again when they were drawn."""
    base: float = math.inf
    version: int = 0
    iteration: int = 0
    requeued: int = 0
    removed: int = 0
    drawn: int = 0

    @property
    def pool(self) -> list[str]:
        return [name for name, sample in self.samples.items() if sample.waits]

    def weight(self, name: str) -> float | None:
        sample = self.samples[name]
        if self.weighting == "uniform":
            return 1.0
        if sample.version is None:
            return None
        if math.isnan(sample.score):
            return 0.0
        if self.weighting == "shift":
            return max(sample.score - self.base, 0.0) + FLOOR
        return sample.score if sample.score >= 1e-150 else 0.0

    def drawable(self) -> list[str]:
        return [name for name in self.pool if self.weight(name)]

    def add(
        self, given: Sequence[str], sources: Sequence[str], *, requeue: bool = True
    ) -> AddResult:
        added = requeued = 0
        known = set()
        for i, (name, source) in enumerate(zip(given, sources, strict=True)):
            if name not in self.samples:
                self.samples[name] = Sample(source, waits=True)
                added += 1
            elif not self.samples[name].waits and not (
                self.mode == "consume" and self.samples[name].claimed
            ):
                sample = self.samples[name]
                if not requeue:
                    known.add((i // add.CHUNK, name))  # repeats are found within a chunk
                    continue
                sample.waits, sample.version, sample.score = True, None, NAN
                sample.requeues += 1
                requeued += 1
        self.requeued += requeued
        return AddResult(
            added, requeued, len(given) - added - requeued - len(known), known=len(known)
        )

    def record(self, given: Sequence[str], values: Sequence[float], source: str) -> AddResult:
        added = 0
        value_of: dict[str, float] = {}
        for name, value in zip(given, values, strict=True):
            if name not in value_of or not math.isnan(value):  # a failure replaces nothing
                value_of[name] = value
        for name, value in value_of.items():
            added += name not in self.samples
            self.samples.setdefault(name, Sample(source)).measure(value)
        return AddResult(added, duplicates=len(given) - added)

    def score(self, names: Sequence[str], score_of: Callable[[str], float]) -> None:
        for name in names:
            value = score_of(name)
            self.samples[name].score = value if math.isfinite(value) else NAN
            self.samples[name].version = self.version

    def lowest(self, names: Sequence[str]) -> float:
        return min(
            (self.samples[n].score for n in names if not math.isnan(self.samples[n].score)),
            default=math.inf,
        )

    def remove(self, gone: Sequence[str]) -> None:
        for name in gone:
            self.samples[name].waits = False
        self.removed += len(gone)

    def draw(self, batch: int, drawn: Sequence[str]) -> None:
        self.open[batch] = list(drawn)
        self.requeues_at[batch] = {name: self.samples[name].requeues for name in drawn}
        self.drawn += len(drawn)
        for name in drawn:
            self.samples[name].waits = self.mode == "replay"
            self.samples[name].claimed += 1

    def measure_late(self, batch: int, name: str, reward: float) -> None:
        """A late reward fills a gap, and the sample stops waiting unless it was added again."""
        sample = self.samples[name]
        if sample.is_measured or math.isnan(reward):
            return
        sample.measure(reward)
        was_added_again = sample.requeues > self.requeues_at[batch][name]
        if self.mode == "consume" and sample.waits and not was_added_again:
            self.remove([name])

    def close(self, batch: int, *, released: bool) -> None:
        for name in self.open[batch]:
            self.samples[name].claimed -= 1
            if released and self.mode == "consume":
                self.samples[name].waits = True
        if released and self.mode == "consume":
            self.base = min(self.base, self.lowest(self.open[batch]))
        self.iteration += not released
        self.drawn -= len(self.open[batch]) if released else 0
        del self.open[batch]


NO_PROCESS = 2**22 + 1
"""A number beyond those that Linux gives to processes."""


class StoreMachine(RuleBasedStateMachine):
    """The steps. Every example has a buffer of its own in one database."""

    def __init__(self, url: sa.URL, buffer_names: Iterator[str]) -> None:
        super().__init__()
        self.url = url
        self.buffer_name = next(buffer_names)
        self.deaths = itertools.count()
        self.batches: list[Batch] = []
        self.stores: list[SampleStore] = []

    @initialize(
        mode=st.sampled_from(["consume", "replay"]),
        weighting=st.sampled_from(["shift", "uniform", "power"]),
        first=st.lists(st.sampled_from(NAMES), min_size=4, max_size=12, unique=True),
        palette=palettes,
    )
    def begin(self, mode: str, weighting: str, first: list[str], palette: list[float]) -> None:
        self.model = Model(mode, weighting)
        self.open()
        self.add(first, 0, True)
        self.score_missing(palette, 0, 10_000)

    def open(self) -> None:
        mode, weighting = self.model.mode, self.model.weighting
        self.store = open_store(
            self.url, name=self.buffer_name, mode=mode, weighting=weighting, seed=7
        )
        self.stores.append(self.store)

    def teardown(self) -> None:
        for store in self.stores:
            store.close()

    # -- samples in --------------------------------------------------------------------------------

    @rule(given=names, source=st.integers(0, 2), requeue=st.booleans())
    def add(self, given: list[str], source: int, requeue: bool) -> None:
        sources = [f"g{source + i % 2}" for i in range(len(given))]
        result = self.store.add(given, source=sources, requeue=requeue)
        assert result == self.model.add(given, sources, requeue=requeue)

    @rule(pick=picks, requeue=st.booleans())
    def add_what_is_known(self, pick: list[int], requeue: bool) -> None:
        known = [name for name in sorted(self.model.samples) if not self.model.samples[name].waits]
        self.add([known[i % len(known)] for i in pick] if known else [], 0, requeue)

    @rule(given=names, values=rewards)
    def record(self, given: list[str], values: list[float | None]) -> None:
        measured = [value for value in values if value is not None] or [0.5]
        of_each = [measured[i % len(measured)] for i in range(len(given))]
        assert self.store.record(given, of_each, "lab") == self.model.record(given, of_each, "lab")

    # -- scores ------------------------------------------------------------------------------------

    def score_function(
        self, palette: list[float], shift: int
    ) -> tuple[Callable[[str], float], Callable[..., Any]]:
        def of_one(name: str) -> float:
            return palette[(int(name[1:]) + shift) % len(palette)]

        return of_one, lambda given: np.array([of_one(name) for name in given])

    @rule(palette=palettes, shift=st.integers(0, 3), chunk=chunks)
    def score_missing(self, palette: list[float], shift: int, chunk: int) -> None:
        of_one, of_many = self.score_function(palette, shift)
        todo = [n for n in self.model.pool if self.model.samples[n].version is None]
        if self.model.weighting == "uniform":
            todo = []  # has its weight without a score
        assert self.store.score(of_many, chunk=chunk) == len(todo)
        self.model.score(todo, of_one)
        self.model.base = min(self.model.base, self.model.lowest(todo))

    def after_refresh(self) -> None:
        self.model.base = self.model.lowest(self.model.pool)
        assert self.store.is_refreshed()

    @rule(palette=palettes, shift=st.integers(0, 3), chunk=chunks)
    def refresh(self, palette: list[float], shift: int, chunk: int) -> None:
        of_one, of_many = self.score_function(palette, shift)
        self.model.version += 1
        assert self.store.score(of_many, only="all", chunk=chunk) == len(self.model.pool)
        self.model.score(self.model.pool, of_one)
        self.after_refresh()

    def is_stale(self, name: str) -> bool:
        version = self.model.samples[name].version
        return version is None or version < self.model.version

    def prioritise(self, chosen: dict[str, float]) -> None:
        """A priority of 0 is never drawn; what is claimed in mode "consume" has no weight yet."""
        for name, priority in chosen.items():
            sample = self.model.samples[name]
            sample.version = self.model.version
            sample.score = priority if priority or self.model.weighting == "power" else NAN
        waiting = [name for name in chosen if self.model.samples[name].waits]
        self.model.base = min(self.model.base, self.model.lowest(waiting))

    @precondition(lambda self: self.model.weighting != "uniform")
    @rule(pick=picks, given=priorities)
    def update_priorities(self, pick: list[int], given: list[float]) -> None:
        stored = sorted(self.model.samples)
        names = list(dict.fromkeys(stored[i % len(stored)] for i in pick))
        chosen = {name: given[i % len(given)] for i, name in enumerate(names)}
        ids = self.ids_of(names)
        there = {name: priority for name, priority in chosen.items() if self.is_there(name)}
        assert self.store.update_priorities(ids, list(chosen.values())) == len(there)
        self.prioritise(there)

    @precondition(lambda self: self.model.weighting != "uniform" and self.batches)
    @rule(which=st.integers(0, 5), given=priorities)
    def update_priorities_of_a_batch(self, which: int, given: list[float]) -> None:
        batch = self.batches[which % len(self.batches)]
        chosen = {name: given[i % len(given)] for i, name in enumerate(batch.samples)}
        there = {name: priority for name, priority in chosen.items() if self.is_there(name)}
        assert batch.update_priorities(list(chosen.values())) == len(there)
        self.prioritise(there)

    def is_there(self, name: str) -> bool:
        sample = self.model.samples[name]
        return sample.waits or bool(self.model.mode == "consume" and sample.claimed)

    def ids_of(self, names: list[str]) -> list[int]:
        table = self.store.table(columns=["sample_id", "sample"]).to_arrow().to_pylist()
        number = {row["sample"]: row["sample_id"] for row in table}
        return [number[name] for name in names]

    @rule(palette=palettes, shift=st.integers(0, 3), chunk=chunks, trained=st.booleans())
    def score_stale(self, palette: list[float], shift: int, chunk: int, trained: bool) -> None:
        of_one, of_many = self.score_function(palette, shift)
        if trained:
            self.model.version += 1
            assert self.store.save_predictor(b"state", rows_trained=1) == self.model.version
        todo = [name for name in self.model.pool if self.is_stale(name)]
        assert self.store.score(of_many, only="stale", chunk=chunk) == len(todo)
        self.model.score(todo, of_one)
        self.after_refresh()

    @rule(palette=palettes, shift=st.integers(0, 3))
    @precondition(lambda self: len(self.model.pool) > 2)
    def interrupted_refresh(self, palette: list[float], shift: int) -> None:
        of_one, of_many = self.score_function(palette, shift)
        scored: list[str] = []

        def interrupted(given: list[str]) -> Any:
            if scored:
                raise KeyboardInterrupt
            scored.extend(given)
            return of_many(given)

        self.model.version += 1
        with pytest.raises(KeyboardInterrupt):
            self.store.score(interrupted, only="all", chunk=2)
        assert not self.store.is_refreshed()
        assert self.store.check() == []
        assert self.store.score(of_many, only="stale") == len(self.model.pool) - len(scored)
        self.model.score(self.model.pool, of_one)
        self.after_refresh()

    # -- batches out -------------------------------------------------------------------------------

    @rule(
        n=st.sampled_from([0, 1, 2, 3, 5, 30, -1]),
        pct_argmax=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]),
    )
    def sample(self, n: int, pct_argmax: float) -> None:
        drawable, weights = (
            self.model.drawable(),
            {n: self.model.weight(n) for n in self.model.pool},
        )
        batch = self.store.sample(n, pct_argmax)
        drawn = list(batch.samples)
        assert len(set(drawn)) == len(drawn)
        assert batch.iteration == self.model.iteration
        assert batch.sources == [self.model.samples[name].source for name in drawn]
        if n == -1:
            assert sorted(drawn) == sorted(self.model.pool)
        else:
            assert set(drawn) <= set(drawable)
            assert len(drawn) == min(n, len(drawable))
        n_heaviest = min(round(n * pct_argmax), len(drawable)) if n > 0 else 0
        heaviest = sorted((weights[name] for name in drawable), reverse=True)[:n_heaviest]
        assert batch.info.argmax.tolist() == [True] * n_heaviest + [False] * (
            len(drawn) - n_heaviest
        )
        same_floats([weights[name] for name in drawn[:n_heaviest]], heaviest)
        same_floats(batch.weights, [weights[name] for name in drawn])
        same_floats(batch.scores, [self.model.samples[name].score for name in drawn])
        same_floats(batch.info.reward, [self.model.samples[name].reward for name in drawn])
        if n != -1:
            p = batch.info.probability
            assert np.isnan(p[n_heaviest:]).all() or ((p > 0) & (p <= 1)).all()
        if batch.id is None:
            assert not drawn
            batch.release()
        else:
            self.model.draw(batch.id, drawn)
            self.batches.append(batch)

    @precondition(lambda self: self.batches)
    @rule(which=st.integers(0, 5), values=rewards, all_none=st.booleans(), also=names)
    def settle(
        self, which: int, values: list[float | None], all_none: bool, also: list[str]
    ) -> None:
        batch = self.batches[which % len(self.batches)]
        of_each = [values[i % len(values)] for i in range(len(batch))]
        is_open = batch.id in self.model.open
        recorded = (also, [0.25] * len(also), "lab")
        with contextlib.nullcontext() if is_open else pytest.raises(ClaimLost):
            batch.settle(None if all_none else of_each, record=recorded)
        for name, value in [] if all_none else zip(batch.samples, of_each, strict=True):
            told = NAN if value is None else value
            if is_open:
                self.model.samples[name].measure(told)
            else:
                self.model.measure_late(batch.id, name, told)
        self.model.record(*recorded)
        if is_open:
            self.model.close(batch.id, released=False)

    @precondition(lambda self: self.batches)
    @rule(which=st.integers(0, 5))
    def release(self, which: int) -> None:
        batch = self.batches[which % len(self.batches)]
        if batch.id in self.model.open:
            batch.release()
            self.model.close(batch.id, released=True)
        else:
            with pytest.raises(ClaimLost):
                batch.release()

    # -- the pool changes without a draw -----------------------------------------------------------

    def chosen(self, pick: list[int]) -> tuple[list[int], list[str]]:
        waiting = self.store.waiting()
        at = sorted({i % len(waiting.ids) for i in pick}) if len(waiting.ids) else []
        return [int(waiting.ids[i]) for i in at], [waiting.samples[i] for i in at]

    @rule(pick=picks, strangers=st.booleans())
    def remove(self, pick: list[int], strangers: bool) -> None:
        ids, gone = self.chosen(pick)
        assert self.store.remove(ids + [2**40] * strangers) == len(gone)
        self.model.remove(gone)

    @rule(pick=picks, given=st.lists(st.sampled_from(NAMES), min_size=5, max_size=5))
    def replace(self, pick: list[int], given: list[str]) -> None:
        pairs = [
            (i, old, new)
            for i, old, new in zip(*self.chosen(pick), given, strict=False)
            if old != new
        ]
        ids, olds, news = ([pair[k] for pair in pairs] for k in range(3))
        sources = [self.model.samples[name].source for name in olds]
        assert self.store.replace(ids, news) == len(olds)
        self.model.remove(olds)
        self.model.add(news, sources)

    # -- processes end -----------------------------------------------------------------------------

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    @rule()
    def die_and_reopen(self) -> None:
        """What this process has claimed is said to be another one's, which runs no more."""
        buffer = inside.handle_of(self.store)
        gone = f"gone {next(self.deaths)}"

        def rename(connection: sa.Connection) -> None:
            for table, name, values in (
                (workers, "id", {"pid": NO_PROCESS}),
                (batches, "worker_id", {}),
            ):
                ours = (table.c.buffer_id == buffer.buffer_id) & (table.c[name] == worker_id())
                connection.execute(sa.update(table).where(ours).values({name: gone, **values}))

        buffer.database.write(rename)
        self.store.close()
        self.open()
        for batch in list(self.model.open):
            self.model.close(batch, released=True)

    # -- what must always hold ---------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        model, pool = self.model, self.model.pool
        waiting, stats = self.store.waiting(), self.store.stats()
        assert sorted(waiting.samples) == sorted(pool)
        assert waiting.sources == [model.samples[name].source for name in waiting.samples]
        same_floats(waiting.weights, [model.weight(name) for name in waiting.samples])
        everything = model.samples.values()
        assert len(self.store) == len(pool)
        assert (stats.waiting, stats.stored, stats.iteration) == (
            len(pool),
            len(model.samples),
            model.iteration,
        )
        assert stats.unscored == sum(model.weight(name) is None for name in pool)
        assert stats.unscorable == sum(model.weight(name) == 0 for name in pool)
        assert stats.claimed == sum(map(len, model.open.values()))
        assert (stats.drawn, stats.requeued, stats.removed) == (
            model.drawn,
            model.requeued,
            model.removed,
        )
        assert stats.measured == sum(sample.is_measured for sample in everything)
        assert stats.failed == sum(
            sample.reward is not None and not sample.is_measured for sample in everything
        )
        assert stats.best_reward == max(
            (s.reward for s in everything if s.is_measured), default=None
        )
        assert stats.score_version == model.version

    @invariant()
    def rewards_agree(self) -> None:
        given, found = self.store.labelled()
        stored = {
            name: sample.reward for name, sample in self.model.samples.items() if sample.is_measured
        }
        assert dict(zip(given, found.tolist(), strict=True)) == stored

    @invariant()
    def is_sound(self) -> None:
        assert self.store.check() == []


def same_floats(found: Any, expected: Any) -> None:
    """Equal up to the rounding of shifted weights; None and NaN are one."""
    found, expected = np.array(found, dtype=np.float64), np.array(expected, dtype=np.float64)
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True), (found, expected)
    assert np.array_equal(found == 0, expected == 0)


@pytest.mark.parametrize(
    ("kind", "max_examples"),
    [
        ("sqlite", 6),
        ("postgresql", 2),
        pytest.param("sqlite", 200, marks=pytest.mark.soak),
        pytest.param("postgresql", 100, marks=pytest.mark.soak),
    ],
)
def test_the_store_and_a_plain_python_model_agree(
    kind: str, max_examples: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(add, "CHUNK", 5)
    monkeypatch.setattr(refresh, "WEIGHTS_CHUNK", 3)
    url = sa.make_url(request.getfixturevalue(f"{kind}_url"))
    if kind == "postgresql":  # thousands of commits that need not outlive a power cut
        url = url.update_query_dict({"options": "-csynchronous_commit=off"})
    buffer_names = (f"buffer {i}" for i in itertools.count())
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: StoreMachine(url, buffer_names),
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=25,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[
                Phase.generate
            ],  # shrinking takes minutes; take `Phase.shrink` in when a failure is hard to read
        ),
    )
