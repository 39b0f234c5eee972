"""Old draws, metrics, checkpoints and states are dropped, and nothing else changes."""

import contextlib
import random
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.commands import run
from helpers.random_run import make_run
from sqlbuffer.core.batch import Batch
from sqlbuffer.db import schema
from sqlbuffer.errors import ClaimLost, InvalidArgument
from sqlbuffer.maintenance import prune as prune_module
from sqlbuffer.records import PruneResult
from sqlbuffer.store import SampleStore, open_store


def drawn(store: SampleStore) -> dict[int, int]:
    """The number of draws of each batch that has some."""
    draws, batches = schema.draws, schema.batches
    return dict(
        inside.rows(
            store,
            sa.select(draws.c.batch_id, sa.func.count())
            .join_from(draws, batches, batches.c.id == draws.c.batch_id)
            .where(batches.c.buffer_id == inside.buffer_id(store))
            .group_by(draws.c.batch_id)
            .order_by(draws.c.batch_id),
        )
    )


def settled(store: SampleStore, n: int, *, size: int = 4) -> None:
    """Settle n batches as iterations of a loop."""
    for _ in range(n):
        batch = store.sample(size)
        batch.settle(
            np.arange(float(len(batch))),
            metrics={"loss": 1.0},
            checkpoint={"agent": b"a" * 100, "log": b"l"},
            kept={"log": None},
        )


class Twin:
    """One of two buffers that do the same, of which one is pruned."""

    def __init__(self, store: SampleStore, seed: int) -> None:
        self.store, self.rng, self.open = store, random.Random(seed), list[Batch]()
        self.names = [f"s{i}" for i in range(60)]

    def scores(self, samples: list[str]) -> list[float]:
        return [self.rng.gauss(0, 1) for _ in samples]

    def add(self) -> Any:
        found = self.store.add(self.rng.sample(self.names, 20), requeue=self.rng.random() < 0.5)
        self.store.score(self.scores)
        return found

    def draw(self) -> Any:
        batch = self.store.sample(self.rng.randint(1, 6), pct_argmax=self.rng.choice([0.0, 0.4]))
        if len(batch):
            self.open.append(batch)
        info = (batch.info.probability.tolist(), batch.info.argmax.tolist())
        return batch.samples, batch.weights.tolist(), batch.info.reward.tolist(), info

    def end(self) -> Any:
        if not self.open:
            return None
        batch = self.open.pop(self.rng.randrange(len(self.open)))
        some, way = batch.ids[: self.rng.randint(0, len(batch))], self.rng.random()
        if way < 0.6:
            batch.settle([self.rng.random() for _ in batch.samples], metrics={"m": way})
        else:
            batch.report(some, [self.rng.random() for _ in some])
            with contextlib.suppress(ClaimLost):
                batch.release()
        if way < 0.3:  # too late
            with contextlib.suppress(ClaimLost):
                batch.report(batch.ids[:1], [self.rng.random()])
        return batch.samples

    def remove(self) -> Any:
        seen = self.draw()[0]  # samples that a released batch has shown
        if self.open and seen:
            batch = self.open.pop()
            batch.release()
            return self.store.remove(batch.ids[: self.rng.randint(0, 2)])
        return None

    def refresh(self) -> Any:
        self.store.save_predictor(b"state", rows_trained=1, checkpoint={"agent": b"x"})
        return self.store.refresh(self.scores, budget=self.rng.choice([None, 5]))

    def record(self) -> Any:
        return self.store.record(self.rng.sample(self.names, 2), [self.rng.random(), None])

    def forget(self) -> Any:
        claimed = {sample for batch in self.open for sample in batch.samples}
        chosen = self.rng.sample(self.names, 3)
        id_of = dict(
            inside.rows(
                self.store,
                sa.select(schema.samples.c.text, schema.samples.c.id).where(
                    schema.samples.c.buffer_id == inside.buffer_id(self.store)
                ),
            )
        )
        return self.store.forget([id_of[s] for s in chosen if s in id_of and s not in claimed])

    def copied(self) -> Any:
        """What a copy under another seed draws, and one of the newest iteration."""
        told = []
        for i, options in enumerate(({}, {"seed": 7}, {"at_iteration": self.store.iteration})):
            with self.store.copy(f"{self.store.name} {i} {self.rng.random()}", **options) as copy:  # type: ignore[arg-type]
                assert copy.check() == []
                numbers = copy.stats()
                stored = numbers.waiting, numbers.stored, numbers.measured, numbers.failed
                told.append((stored, copy.sample(5).samples if len(copy) else None))
                copy._release_dropped()
        return told

    def state(self) -> Any:
        waiting = self.store.waiting()
        rewards = [(row["sample"], row["reward"]) for row in self.store.top(100)]
        return waiting.samples, waiting.weights.tolist(), rewards, counts(self.store)


def counts(store: SampleStore) -> Any:
    found = store.stats()
    names = ("iteration", "waiting", "stored", "claimed", "drawn", "requeued", "removed")
    return *(getattr(found, name) for name in names), found.measured, found.failed


ACTS = ["add", "draw", "draw", "draw", "end", "end", "remove", "refresh", "record", "forget"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*dropped")
@pytest.mark.parametrize(
    ("store_url", "mode", "seed"),
    [("sqlite", "consume", 0), ("postgresql", "replay", 1)],
    indirect=["store_url"],
)
def test_a_run_that_is_pruned_equals_one_that_is_not(
    store_url: str, mode: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_module, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(prune_module, "_BATCHES_AT_ONCE", 3)
    monkeypatch.setattr(prune_module, "_PAUSE_S", 0.0)
    rng = random.Random(seed)
    with (
        open_store(store_url, name="pruned", mode=mode) as pruned,
        open_store(store_url, name="whole", mode=mode) as whole,
    ):
        twins = Twin(pruned, seed), Twin(whole, seed)
        for i in range(35):
            act = "add" if not i else rng.choice(ACTS)
            first, second = (getattr(twin, act)() for twin in twins)
            assert repr(first) == repr(second), (i, act)  # NaN is unequal to itself
            if i % 7 == 6:
                pruned.prune(keep_draws=rng.choice([0, 0, 15]))
                assert repr(twins[0].state()) == repr(twins[1].state()), (i, act)
        assert pruned.check() == whole.check() == []
        assert sum(drawn(pruned).values()) < sum(drawn(whole).values())
        for twin in twins:
            while twin.open:
                twin.end()
            settled(twin.store, 1)
        assert twins[0].copied() == twins[1].copied()
        assert repr(twins[0].state()) == repr(twins[1].state())


# -- what is kept ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_newest_draws_are_kept_in_whole_batches(store: SampleStore) -> None:
    store.add([f"s{i}" for i in range(100)])
    store.score(lambda samples: [1.0] * len(samples))
    settled(store, 10)
    numbers = [*drawn(store)]
    dropped = store.prune(keep_draws=9)
    assert [*drawn(store)] == numbers[-3:]
    assert dropped == PruneResult(
        draws=28, metrics=7, checkpoints=6, size_bytes=prune_module.ROW_BYTES * 35 + 6
    )
    assert [row["iteration"] for row in store.history()] == [7, 8, 9]
    assert [iteration for iteration, _ in store.checkpoints("log")] == [7, 8, 9, 10]
    assert store.prune(keep_draws=9) == PruneResult()
    assert store.prune(older_than_s=3_600) == PruneResult()
    assert store.prune(older_than_s=0).draws == 12
    assert (drawn(store), store.history()) == ({}, [])
    assert [iteration for iteration, _ in store.checkpoints("log")] == [10]
    assert store.checkpoint("agent") == (10, b"a" * 100)
    assert len(store.labelled()[0]) == 40
    assert store.check() == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"keep_draws": 0}, {"older_than_s": 0}])
def test_a_claimed_batch_is_kept_until_it_is_closed(store: SampleStore, how: Any) -> None:
    store.add([f"s{i}" for i in range(40)])
    store.score(lambda samples: [1.0] * len(samples))
    settled(store, 2)
    token = store.sample(4, lease_s=3_600).detach()
    claimed = hold(store.sample(4))
    settled(store, 2)
    assert store.prune(**how).draws == 16
    assert drawn(store) == {store.batch(token).id: 4, claimed.id: 4}
    assert store.check() == []
    store.batch(token).settle([1.0] * 4)
    claimed.release()
    assert store.check() == []
    assert store.prune(**how).draws == 8
    assert store.check() == []
    assert drawn(store) == {}


def test_a_batch_that_was_measured_in_part_stays_a_turn_of_the_race(store: SampleStore) -> None:
    store.add([f"s{i}" for i in range(40)])
    store.score(lambda samples: [1.0] * len(samples))
    batch = store.sample(4)
    batch.report(batch.ids[:1], [1.0])
    batch.release()
    settled(store, 2)
    store.prune(keep_draws=0)
    assert drawn(store) == {batch.id: 4}
    assert store.check() == []


@pytest.mark.slow
def test_removed_samples_of_a_released_batch_still_move_the_clock(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`prune` keeps the draws of a released batch that the race has not passed."""
    told = []
    for name in ("pruned", "whole"):
        with open_store(store_url, name=name) as store:
            store.add([f"s{i}" for i in range(200)])
            store.score(lambda samples: [float(len(sample)) for sample in samples])
            settled(store, 1)
            seen = store.sample(20)
            seen.release()
            if name == "pruned":
                assert store.prune(keep_draws=0).draws == 4
            store.remove(seen.ids[:19])
            batch = store.sample(20)
            told.append((batch.samples, batch.info.probability.tolist()))
            batch.settle()
    assert told[0] == told[1]


@pytest.mark.slow
def test_states_that_are_in_use_or_in_force_are_kept(store: SampleStore) -> None:
    """The state of version 2 has made the score of a waiting sample."""
    store.add([f"s{i}" for i in range(40)])
    for i in range(6):
        store.save_predictor(b"state %d" % i, rows_trained=1)
        if i == 1:
            store.score(lambda samples: [1.0] * len(samples))
        elif i > 1:
            store.refresh(lambda samples: [1.0] * len(samples), budget=10)
        settled(store, 1)
    in_use = {it.score_version for it in store.staleness()}
    store.prune(keep_draws=8)
    versions = store.predictors()
    kept = {it.version for it in versions if it.size_bytes}
    assert [it.version for it in versions] == [1, 2, 3, 4, 5, 6]
    assert kept == {*in_use, 5, 6} > {6}
    assert 1 not in kept
    with store.copy("then", at_iteration=4) as copy:
        assert copy.predictor_state() == b"state 4"
    store.prune(keep_draws=0)
    assert {it.version for it in store.predictors() if it.size_bytes} == {*in_use, 6}
    assert store.predictor_state() == b"state 5"


def test_late_rewards_of_dropped_draws_are_stored(store: SampleStore) -> None:
    store.add(["a", "b", "c", "d"])
    store.score(lambda samples: [1.0] * len(samples))
    first, second = store.sample(2), store.sample(2)
    first.release()
    second.settle([None, None])
    store.prune(older_than_s=0)
    for batch in (first, second):
        with pytest.raises(ClaimLost, match="was already settled or released"):
            batch.settle([5.0, 6.0])
    assert store.stats().measured == 4
    assert store.check() == []


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_copy_of_an_iteration_before_the_dropped_draws_is_refused(store: SampleStore) -> None:
    store.add([f"s{i}" for i in range(100)])
    store.score(lambda samples: [1.0] * len(samples))
    settled(store, 6)
    whole = [store.copy(f"whole {i}", at_iteration=i) for i in range(7)]
    store.prune(keep_draws=8)
    for i in range(4):
        with pytest.raises(
            InvalidArgument,
            match=rf"^buffer 'default' cannot be copied as it was at iteration {i}, because draws "
            r"of iteration 3 were dropped by `prune`: give 4 or later, or leave out at_iteration, "
            r"which copies the present state\.$",
        ):
            store.copy("early", at_iteration=i)
    for i in range(4, 7):
        with store.copy(f"pruned {i}", at_iteration=i) as copy, whole[i]:
            assert (copy.check(), counts(copy)) == ([], counts(whole[i]))
            assert copy.waiting().samples == whole[i].waiting().samples
            assert len(drawn(copy)) == i - 4
            with pytest.raises(InvalidArgument, match="of iteration 3 were dropped"):
                copy.copy("again", at_iteration=3)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "prune takes the number of the newest draws to keep .* give one of the two"),
    ({"keep_draws": 1, "older_than_s": 1}, "give one of the two"),
    ({"keep_draws": -1}, "keep_draws must be a number of draws"),
    ({"keep_draws": 1.5}, "keep_draws must be a number of draws"),
    ({"older_than_s": -1}, "older_than_s must be a number of seconds, 0 to"),
    ({"older_than_s": float("nan")}, "older_than_s must be"),
    ({"older_than_s": "30d"}, "older_than_s must be"),
]


@pytest.mark.parametrize(("how", "why"), WRONG)
def test_wrong_arguments_are_refused(store: SampleStore, how: Any, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        store.prune(**how)


def test_missing_draws_that_were_not_dropped_are_found(store: SampleStore) -> None:
    store.add([f"s{i}" for i in range(40)])
    store.score(lambda samples: [1.0] * len(samples))
    settled(store, 4)
    store.prune(keep_draws=8)
    newest = max(drawn(store))
    inside.execute(store, sa.delete(schema.draws).where(schema.draws.c.batch_id == newest))
    assert store.check() == [f"the number of draws of batch {newest} differs from its size."]


# -- the run goes on -------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupted_call_leaves_a_sound_buffer_and_the_next_goes_on(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_module, "ROWS_AT_ONCE", 10)
    store.add([f"s{i}" for i in range(60)])
    store.score(lambda samples: [1.0] * len(samples))
    settled(store, 12)

    def interrupt(moment: str) -> None:
        if moment == "after":
            raise KeyboardInterrupt

    n_calls, numbers = 0, [48]
    while True:
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            inside.call_at_commits(patch, interrupt)
            store.prune(keep_draws=4)
            break
        n_calls += 1
        assert store.check() == []
        numbers.append(sum(drawn(store).values()))
    assert n_calls > 6
    assert numbers == sorted(numbers, reverse=True)
    assert (numbers[-1], len(store.history()), len(store.checkpoints("log"))) == (4, 1, 2)


@pytest.mark.slow
def test_a_resumed_loop_is_the_same_to_the_last_bit(sqlite_url: str) -> None:
    torch = pytest.importorskip("torch")

    def fit(name: str, iters: int) -> Any:
        env = make_run(sqlite_url, name)
        env.fit(6, iters=iters, report=0)
        weights = [it.tolist() for it in env.policy.model.state_dict().values()]
        store = env.buffer.store
        told = weights, store.waiting().samples, store.top(1000), store.history()[-20:]
        env.buffer.close()
        return told

    told = []
    for name in ("pruned", "whole"):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        fit(name, 4)
        if name == "pruned":
            with open_store(sqlite_url, name=name) as store:
                assert store.prune(keep_draws=0).draws > 0
        told.append(fit(name, 7))
    for row in (row for one in told for row in one[2]):
        for column in ("id", "created_at", "scored_at", "rewarded_at"):
            row.pop(column, None)
    assert repr(told[0]) == repr(told[1])


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_prunes(store_url: str) -> None:
    with open_store(store_url, name="qed", weighting="uniform") as store:
        store.add([f"s{i}" for i in range(40)])
        settled(store, 4)
        assert run("prune", "--name", "qed", "--older-than", "30d", url=store_url).out.startswith(
            "qed: dropped 0 draws, "
        )
        shown = run("prune", "--name", "qed", "--keep-draws", "8", url=store_url)
        assert shown.out.startswith(
            "qed: dropped 8 draws, 2 metrics, 1 checkpoint and 0 states of predictors, 0.0 MB; "
            "new rows use the space again"
        )
        assert len(drawn(store)) == 2
        assert store.check() == []
    for wrong in ([], ["--keep-draws", "1", "--older-than", "1d"], ["--older-than", "1w"]):
        assert run("prune", *wrong, url=store_url).code == 2
