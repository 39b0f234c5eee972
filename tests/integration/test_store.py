"""The public surface of a store, end to end, on both databases."""

import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import enum
import math
import os
import random
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.samples import scores_of
from sqlbuffer.core import add, attach, workers
from sqlbuffer.core import draw as core_draw
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weighting import Power, Softmax
from sqlbuffer.db.schema import workers as workers_table
from sqlbuffer.errors import (
    ClaimLost,
    InvalidArgument,
    InvalidReward,
    SettingsMismatch,
    UnsupportedType,
)
from sqlbuffer.records import AddResult
from sqlbuffer.store import SampleStore, open_store

OpenStore = Callable[..., SampleStore]
TEN = [f"s{i}" for i in range(10)]


def scored(store: SampleStore, samples: Sequence[str] = TEN) -> SampleStore:
    store.add(list(samples), source="g")
    store.score(scores_of)
    return store


# -- samples in ------------------------------------------------------------------------------------


def test_a_draw_before_any_score_says_why_it_is_empty(
    store: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(store.sample(2)) == 0
    assert caplog.messages == []
    store.add(["s1", "s2", "s3"])
    said = [
        "nothing was drawn: 3 samples of buffer 'default' wait without a score: call `score`, or "
        "take a buffer that draws without scores, such as a copy: `sqlbuffer copy NAME NEW "
        "--weighting uniform`"
    ]
    for _ in range(2):
        assert len(store.sample(2)) == 0
        assert caplog.messages == said, "once, however often it is asked"


def test_a_draw_of_weight_zero_says_why_it_is_empty(
    store: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.add(["s1", "s2"])
    store.score(lambda samples: np.full(len(samples), math.nan))
    store.add(["s3"])
    caplog.clear()
    for _ in range(2):
        assert len(store.sample(2)) == 0
    assert [message.partition(":")[2][:60] for message in caplog.messages] == [
        " 1 sample of buffer 'default' waits without a score: call `s",
        " 2 samples of buffer 'default' wait with weight 0, that of a",
    ]


def test_add_counts_what_is_new_and_what_is_not(store: SampleStore) -> None:
    assert store.add(["a", "b", "a"]) == AddResult(added=2, duplicates=1)
    assert store.add(["b", "c"]) == AddResult(added=1, duplicates=1)
    assert store.add([]) == AddResult()
    assert len(store) == 3
    assert sorted(store.waiting().samples) == ["a", "b", "c"]


def test_what_was_drawn_waits_again_with_its_reward(new_store: OpenStore) -> None:
    store = new_store(weighting="uniform")
    store.add(["a"], source="first")
    batch = store.sample(1)
    assert store.add(["a"]) == AddResult(duplicates=1), "claimed, not settled"
    batch.settle([2.5])
    assert store.add(["a"], source="second", requeue=True) == AddResult(requeued=1)
    again = store.sample(1)
    assert (again.samples, again.sources, again.info.reward.tolist()) == (["a"], ["first"], [2.5])
    again.settle()
    assert store.labelled()[1].tolist() == [2.5]
    assert store.stats().requeued == 1


def test_a_requeued_sample_is_scored_again(store: SampleStore) -> None:
    scored(store, ["s3"]).sample(1).settle()
    store.add(["s3"], requeue=True)
    assert store.stats().unscored == 1
    assert len(store.sample(1)) == 0
    assert store.score(scores_of) == 1


def test_sources_and_meta_are_kept(store: SampleStore) -> None:
    store.add(["a", "b"], source=["zinc", "mutation"], meta=[{"parent": "x", "n": 1}, None])
    store.add(["c"], source="zinc", meta={"ok": True})
    store.record(["d"], [1.0], "lab")
    waiting = store.waiting()
    assert dict(zip(waiting.samples, waiting.sources, strict=True)) == {
        "a": "zinc",
        "b": "mutation",
        "c": "zinc",
    }
    store.record(["a", "b", "c"], [3.0, 2.0, 1.5])
    assert [row["meta"] for row in store.top(4)] == [
        {"parent": "x", "n": 1},
        None,
        {"ok": True},
        None,
    ]
    assert [row["source"] for row in store.top(4)] == ["zinc", "mutation", "zinc", "lab"]


def test_equal_keys_are_one_sample_and_none_is_refused(new_store: OpenStore) -> None:
    store = new_store(key=lambda sample: sample.strip().lower() or None)
    given = ["A", " a", "", "b", "  "]
    assert store.add(given) == AddResult(added=2, duplicates=1, refused_at=(2, 4))
    assert sorted(store.waiting().samples) == ["A", "b"], "the first form stays"
    assert store.record(["B ", "", "c"], [1.0, 2.0, 3.0]) == AddResult(
        added=1, duplicates=1, refused_at=(1,)
    )
    assert store.stats().refused == 3
    assert store.rewards_of(["b", " C", " ", "d"]) == [1.0, 3.0, None, None]


def test_chunks_count_as_one_call(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(add, "CHUNK", 3)
    sources = [f"g{i}" for i in range(10)]
    assert store.add(
        [*TEN[:5], *TEN[:5]], source=sources, meta=[{"i": i} for i in range(10)]
    ) == AddResult(5, 0, 5)
    waiting = store.waiting()
    assert dict(zip(waiting.samples, waiting.sources, strict=True)) == dict(
        zip(TEN[:5], sources, strict=False)
    )


def test_arguments_that_do_not_fit_store_nothing(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(add, "CHUNK", 3)
    for arguments in (
        {"source": ["g"] * 3},
        {"source": ["g"] * 11},
        {"meta": [None] * 3},
        {"meta": [None] * 11},
    ):
        with pytest.raises(InvalidArgument, match="10 samples"):
            store.add(TEN, **arguments)  # type: ignore[arg-type]
        assert len(store) == 0, "the first chunk was stored"


def test_record_stores_rewards_of_what_was_never_drawn(store: SampleStore) -> None:
    store.add(["waits"])
    assert store.record(["waits", "new", "new"], [1.0, 2.0, 3.0], "lab") == AddResult(
        added=1, duplicates=2
    )
    assert store.waiting().samples == ["waits"], "a reward does not end the waiting"
    assert store.rewards_of(["new", "waits", "never"]) == [3.0, 1.0, None], "the last one counts"
    assert store.add(["new"], requeue=True) == AddResult(requeued=1)
    stats = store.stats()
    assert (stats.stored, stats.measured, stats.failed) == (2, 2, 0)
    store.record(["failed"], [math.nan])
    stats = store.stats()
    assert (stats.measured, stats.failed) == (2, 1)


def test_strings_that_no_database_takes_as_text(new_store: OpenStore) -> None:
    store = new_store(weighting="uniform")
    odd = ["a\0b", "\ud800", "", " ", "\n", "ä" * 1000, "'; DROP TABLE samples; --", "%s", ":x"]
    store.add(odd)
    assert sorted(hold(store.sample(-1)).samples) == sorted(odd)


# -- batches out -----------------------------------------------------------------------------------


def test_an_empty_pool_gives_an_empty_batch(store: SampleStore) -> None:
    batch = store.sample(5, pct_argmax=0.5)
    assert (len(batch), batch.samples, batch.sources, batch.id, batch.iteration) == (
        0,
        [],
        [],
        None,
        0,
    )
    assert [array.shape for array in (batch.ids, batch.scores, batch.weights)] == [(0,)] * 3
    assert [getattr(batch.info, field.name).shape for field in dataclasses.fields(batch.info)] == [
        (0,)
    ] * 3
    batch.settle([])
    assert store.iteration == 1
    with pytest.raises(ClaimLost):
        batch.settle()
    store.sample(1).release()
    assert store.check() == []


@pytest.mark.each_database
@pytest.mark.parametrize("n", [11, 2**31 - 1, 2**31, 2**63, 2**70])
def test_asking_for_more_gives_what_there_is(store: SampleStore, n: int) -> None:
    assert sorted(hold(scored(store).sample(n, pct_argmax=0.5)).samples) == TEN


def test_everything_includes_what_cannot_be_drawn(store: SampleStore) -> None:
    store.add(["s1", "s2"])
    store.score(
        lambda samples: np.array([math.nan if sample == "s2" else 1.0 for sample in samples])
    )
    store.add(["s3"])
    assert hold(store.sample(3)).samples == ["s1"], "neither NaN nor unscored samples are drawn"
    stats = store.stats()
    assert (stats.waiting, stats.unscored, stats.unscorable) == (2, 1, 1)
    batch = store.sample(-1)
    assert sorted(batch.samples) == ["s2", "s3"]
    assert np.isnan(batch.scores).all()
    batch.release()
    stats = store.stats()
    assert (stats.waiting, stats.unscored, stats.unscorable) == (2, 1, 1)
    assert store.check() == []


@pytest.mark.parametrize(
    ("n", "pct_argmax", "n_heaviest"),
    [(10, 0.0, 0), (10, 0.1, 1), (10, 0.29, 3), (4, 0.4, 2), (10, 1.0, 10), (1, 0.4, 0)],
)
def test_the_argmax_share_is_rounded(
    store: SampleStore, n: int, pct_argmax: float, n_heaviest: int
) -> None:
    samples = [f"s{i}" for i in range(100)]
    batch = scored(store, samples).sample(n, pct_argmax)
    assert len(batch) == n
    assert batch.samples[:n_heaviest] == samples[::-1][:n_heaviest]
    assert batch.info.argmax.tolist() == [True] * n_heaviest + [False] * (n - n_heaviest)
    assert (batch.info.probability[:n_heaviest] == 1.0).all()
    assert batch.scores.tolist() == scores_of(batch.samples).tolist()


@pytest.mark.slow
def test_the_argmax_share_stays_exact_while_the_pool_changes(store: SampleStore) -> None:
    rng = random.Random(0)
    left: set[str] = set()
    for step in range(40):
        new = [f"s{rng.randrange(10**6)}.5" for _ in range(rng.randrange(200))]
        store.add(new, requeue=True)
        store.score(scores_of)
        left |= set(new)
        if step % 7 == 3:
            store.score(scores_of, only="all")
        batch = store.sample(20, pct_argmax=0.5)
        by_argmax = [
            sample
            for sample, is_top in zip(batch.samples, batch.info.argmax, strict=True)
            if is_top
        ]
        assert (
            by_argmax == sorted(left, key=lambda sample: -float(sample[1:]))[: min(10, len(left))]
        )
        if step % 3:
            batch.settle()
            left -= set(batch.samples)
        else:
            batch.release()
    assert store.check() == []


def test_a_released_batch_is_first_in_line_again(store: SampleStore) -> None:
    first = scored(store).sample(4)
    later = store.sample(2)
    first.release()
    again = store.sample(4)
    assert (again.samples, again.ids.tolist()) == (first.samples, first.ids.tolist())
    assert later.samples not in again.samples
    assert store.check() == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_released_batches_come_again_one_after_the_other(
    store: SampleStore, order: tuple[int, int]
) -> None:
    """A process that prefetches has two batches open when it dies."""
    scored(store, [f"s{i}" for i in range(50)])
    both = [store.sample(5), store.sample(5)]
    for i in order:
        both[i].release()
    assert [hold(store.sample(5)).samples, hold(store.sample(5)).samples] == [
        batch.samples for batch in both
    ]


def test_a_batch_releases_what_its_block_does_not_settle(store: SampleStore) -> None:
    scored(store)
    with pytest.raises(ZeroDivisionError), store.sample(3):
        raise ZeroDivisionError
    assert (len(store), store.iteration) == (10, 0)
    with store.sample(3):
        pass
    assert (len(store), store.iteration) == (10, 0)
    with store.sample(3) as batch:
        batch.settle([1.0, 2.0, 3.0])
    assert (len(store), store.iteration) == (7, 1)


def test_settling_stores_everything_at_once(store: SampleStore) -> None:
    batch = scored(store).sample(3)
    record = (["s77", batch.samples[0]], [7.0, 8.0], "lab")
    batch.settle(
        [1.0, math.nan],
        ids=batch.ids[[0, 2]],
        record=record,
        metrics={"loss": 0.5},
        checkpoint={"agent": b"state"},
    )
    rewards = store.rewards_of([*batch.samples, "s77"])
    assert rewards == [8.0, None, pytest.approx(math.nan, nan_ok=True), 7.0]
    assert store.history() == [{"iteration": 0, "name": "loss", "value": 0.5}]
    assert store.checkpoint("agent") == (1, b"state")
    stats = store.stats()
    assert (stats.iteration, stats.measured, stats.failed, stats.claimed, stats.stored) == (
        1,
        2,
        1,
        0,
        11,
    )
    assert store.check() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"checkpoint": {"agent": object()}},
        {"metrics": {"loss": object()}},
        {"metrics": {object(): 1.0}},
    ],
)
def test_a_failure_while_settling_leaves_nothing(store_url: str, wrong: dict[str, Any]) -> None:
    with open_store(store_url) as store:
        scored(store)
    with open_store(store_url) as store:  # nothing is prepared in these connections yet
        batch = store.sample(3)
        record = (["new"], [1.0], "lab")
        with pytest.raises(Exception, match="object"):
            batch.settle([1.0, 2.0, 3.0], record=record, **wrong)
        stats = store.stats()
        assert (stats.iteration, stats.measured, stats.claimed, stats.stored) == (0, 0, 3, 10)
        assert store.history() == []
        batch.settle([1.0, 2.0, 3.0], record=record)
        stats = store.stats()
        assert (stats.iteration, stats.measured, stats.claimed, stats.stored) == (1, 4, 0, 11)
        assert store.check() == []


def test_wrong_rewards_store_nothing_and_keep_the_claim(store: SampleStore) -> None:
    batch = scored(store).sample(2)
    for wrong in ([1.0], [1.0, math.inf], [1.0, "x"], 1.0, None):
        with pytest.raises(InvalidReward):
            batch.settle([1.0, 2.0], record=(["x", "y"], wrong, "lab"))
        if wrong is not None:
            with pytest.raises(InvalidReward):
                batch.settle(wrong)
    assert store.stats().measured == 0
    batch.settle([1.0, 2.0])


def test_a_lost_claim_still_stores_its_rewards(store: SampleStore) -> None:
    batch = scored(store).sample(2)
    batch.settle([1.0, 2.0])
    with pytest.raises(ClaimLost, match="rewards are stored"):
        batch.settle([3.0, None], metrics={"loss": 1.0}, checkpoint={"agent": b""})
    with pytest.raises(ClaimLost):
        batch.release()
    assert store.rewards_of(batch.samples) == [1.0, 2.0]
    assert (store.iteration, store.history(), store.checkpoint("agent")) == (1, [], None)
    assert store.check() == []


def test_rewards_of_any_number_type(store: SampleStore) -> None:
    import torch

    for given in (
        [1, 2],
        np.array([1.0, 2.0], dtype=np.float32),
        torch.tensor([1.0, 2.0], requires_grad=True),
        (1, 2),
    ):
        store.add(["s1", "s2"], requeue=True)
        store.score(scores_of)
        batch = store.sample(2)
        batch.settle(given)
        assert store.rewards_of(batch.samples) == [1.0, 2.0]


# -- the race --------------------------------------------------------------------------------------


def run_of_batches(
    store: SampleStore, order: Sequence[str], *, chunks: int, score_chunk: int
) -> list[list[str]]:
    """Add, score, draw, release, requeue and refresh; only the order in which samples
    come differs.
    """
    history, kind = [], store.stats().kind
    for step in range(4):
        size = -(-len(order) // chunks)
        for start in range(0, len(order), size):
            store.add([f"{sample}{step}" for sample in order[start : start + size]])
            if score_chunk > 1:
                store.score(scores_of, chunk=score_chunk)
        store.score(scores_of, chunk=score_chunk)
        for pct_argmax in (
            0.0,
            0.0 if kind == "uniform" else 0.2,
            0.0,
        ):  # weights that tie go by age
            batch = store.sample(7, pct_argmax)
            history.append(batch.samples)
            batch.settle()
        store.sample(5).release()
        store.add(history[-1], requeue=True)
        if step == 2:
            store.score(lambda samples: -scores_of(samples), only="all")
    return history


@pytest.mark.parametrize("weighting", ["shift", "uniform", Softmax(300.0), Power(2.0)])
def test_the_same_seed_samples_and_scores_give_the_same_batches(
    sqlite_url: str, postgresql_url: str, weighting: Any
) -> None:
    """On both databases, with the samples in another order, in other chunks, and scored in another
    order.
    """
    samples = [f"s{i}" for i in range(1, 32)]
    shuffled = random.Random(5).sample(samples, len(samples))
    runs = []
    for i, (url, order, chunks, score_chunk) in enumerate(
        [
            (sqlite_url, samples, 1, 1000),
            (sqlite_url, shuffled, 1, 1000),
            (sqlite_url, samples[::-1], 6, 10),
            (sqlite_url, shuffled, 3, 1),
            (postgresql_url, samples, 1, 1000),
            (postgresql_url, shuffled, 6, 10),
        ]
    ):
        with open_store(url, name=f"run {i}", seed=11, weighting=weighting) as store:
            runs.append(run_of_batches(store, order, chunks=chunks, score_chunk=score_chunk))
            assert store.check() == []
    assert all(run == runs[0] for run in runs)


@pytest.mark.parametrize("change", [{"seed": 1}, {"weighting": "uniform"}])
def test_another_seed_or_weighting_gives_other_batches(
    new_store: OpenStore, change: dict[str, Any]
) -> None:
    samples = [f"s{i}" for i in range(200)]
    first = hold(scored(new_store(name="one"), samples).sample(20)).samples
    assert hold(scored(new_store(name="two"), samples).sample(20)).samples == first
    assert hold(scored(new_store(name="three", **change), samples).sample(20)).samples != first


@pytest.mark.usefixtures("global_random_state_stays")
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_no_global_random_state_is_touched(new_store: OpenStore, mode: str) -> None:
    before = random.getstate()
    store = new_store(mode=mode)
    store.add([f"s{i}" for i in range(50)])
    store.score(scores_of)
    store.sample(10, pct_argmax=0.5).settle([1.0] * 10)
    store.sample(5).release()
    batch = store.sample(5)
    batch.report(batch.ids[:2], [1.0, 2.0])
    batch.release()
    store.add(["s1", "s99"])
    store.score(lambda samples: -scores_of(samples), only="all")
    store.save_predictor(b"", rows_trained=1)
    store.score(scores_of, only="stale", budget=7)
    store.record(["s100"], [1.0])
    store.remove(store.waiting().ids[:2])
    with store.leased("tidy"):
        pass
    store.copy("other", seed=1).close()
    assert store.check() == []
    assert random.getstate() == before


def test_replay_draws_again_and_again(new_store: OpenStore) -> None:
    store = scored(new_store(mode="replay"))
    drawn = []
    for _ in range(30):
        batch = store.sample(3)
        drawn += batch.samples
        batch.settle([1.0] * 3)
    assert len(store) == 10
    assert len(set(drawn)) > 5
    assert store.check() == []


def test_a_released_batch_is_drawn_again_in_replay_mode(new_store: OpenStore) -> None:
    """A run that dies with a batch open draws the same batches as one that does not."""
    alive = scored(new_store(mode="replay", name="alive"))
    dies = scored(new_store(mode="replay", name="dies"))
    expected = [hold(alive.sample(3)).samples for _ in range(4)]
    found = [hold(dies.sample(3)).samples]
    dies.sample(3).release()
    found += [hold(dies.sample(3)).samples for _ in range(3)]
    assert found == expected


def test_samples_taken_out_while_claimed_in_replay_mode(new_store: OpenStore) -> None:
    store = scored(new_store(mode="replay"))
    batch = store.sample(3)
    assert store.remove(batch.ids.tolist()) == 3
    assert store.check() == []
    assert store.add(batch.samples[:1], requeue=True) == AddResult(requeued=1)
    batch.settle([1.0, 2.0, 3.0])
    assert len(store) == 8
    assert store.check() == []


def test_weights_follow_the_lowest_score_also_for_what_comes_back_late(store: SampleStore) -> None:
    """A released sample may score below what the weights count from since the last refresh."""
    score_of = {"low": 0.0, "high": 5.0, "higher": 6.0, "new": 3.0}

    def score(samples: list[str]) -> np.ndarray:
        return np.array([score_of[sample] for sample in samples])

    store.add(["low", "high", "higher"])
    store.score(score)
    others = store.sample(2)
    assert sorted(others.samples) == ["high", "higher"]
    lowest = store.sample(1)
    others.release()
    store.score(score, only="all")
    lowest.release()
    store.add(["new"])
    store.score(score)
    assert store.check() == []


def test_what_no_database_takes_is_refused(store: SampleStore) -> None:
    for wrong in (
        {"source": "a\0b"},
        {"source": ["a\0b"]},
        {"source": [3]},
        {"meta": {"x": "a\0b"}},
        {"source": None},
    ):
        with pytest.raises(InvalidArgument):
            store.add(["a"], **wrong)  # type: ignore[arg-type]
    assert len(store) == 0


@pytest.mark.slow
def test_the_race_goes_on_after_weights_of_every_size(new_store: OpenStore) -> None:
    """After a sample of weight 1e-100 the clock stands at 1e100, where 1 is nothing."""
    score_of = {f"t{i}": 10.0**-i for i in range(0, 140, 20)} | {
        f"n{i}": 1.0 + i for i in range(40)
    }
    score = lambda samples: np.array([score_of[sample] for sample in samples])  # noqa: E731
    orders = []
    for seed in range(3):
        store = new_store(name=str(seed), weighting="power", seed=seed)
        store.add([f"t{i}" for i in range(0, 140, 20)])
        store.score(score)
        store.sample(7).settle()
        store.add([f"n{i}" for i in range(40)])
        store.score(score)
        orders.append(hold(store.sample(40)).samples)
        assert store.check() == []
    assert orders[0] != orders[1] != orders[2], "the order is that of the ids, not of the race"


@pytest.mark.slow
def test_extreme_scores(new_store: OpenStore) -> None:
    extremes = [0.0, 5e-324, 1e-300, 1e-30, 1.0, 1e30, 1e300, 1.7e308, -1.0, -1e300]
    score_of = dict(zip(TEN, extremes, strict=True))
    for i, weighting in enumerate(["power", Power(3.0), Softmax(), Softmax(1e-300)]):
        store = new_store(name=str(i), weighting=weighting)
        store.add(TEN)
        store.score(lambda samples: np.array([score_of[sample] for sample in samples]))
        assert store.check() == []
        store.score(lambda samples: -np.array([score_of[sample] for sample in samples]), only="all")
        store.sample(3).settle()
        store.add(["late"])
        store.score(lambda samples: np.ones(len(samples)))
        store.sample(3).release()
        assert store.check() == []
        stats = store.stats()
        assert len(store.sample(20)) == stats.waiting - stats.unscorable > 0


# -- the pool changes without a draw ---------------------------------------------------------------


def test_max_size_lets_the_lightest_go(new_store: OpenStore) -> None:
    store = scored(new_store(max_size=6), ["s3", "s1", "s1.0", "s7", "s5"])
    store.add(["s9", "s8", "s2"])
    assert len(store) == 8, "what has no score waits for one"
    store.score(scores_of)
    assert sorted(store.waiting().samples) == ["s2", "s3", "s5", "s7", "s8", "s9"]
    store.add([f"s0.{i}" for i in range(1, 9)])
    store.score(scores_of)
    assert sorted(store.waiting().samples) == ["s2", "s3", "s5", "s7", "s8", "s9"]
    assert store.stats().removed == 2 + 8
    assert store.stats().max_size == 6
    assert store.add(["s1"]) == AddResult(requeued=1)
    assert store.check() == []


def test_max_size_of_a_plain_buffer_lets_the_oldest_go(new_store: OpenStore) -> None:
    store = new_store(weighting="uniform", max_size=4)
    for sample in TEN:
        store.add([sample])
    assert store.waiting().samples == TEN[-4:]
    assert store.check() == []


def test_removed_samples_do_not_wait(store: SampleStore) -> None:
    waiting = scored(store).waiting()
    assert store.remove(waiting.ids[:3].tolist() * 2 + [10**12]) == 3
    assert store.remove(np.array([], dtype=np.int64)) == 0  # type: ignore[arg-type]
    assert store.waiting().samples == waiting.samples[3:]
    assert store.add(waiting.samples[:1], requeue=True) == AddResult(requeued=1)
    assert store.check() == []


def test_replaced_samples_keep_their_source(store: SampleStore) -> None:
    store.add(["A ", "b", "B "], source=["x", "y", "z"])
    before = store.waiting()
    new = {"A ": "a", "b": "b2", "B ": "b"}
    assert (
        store.replace([*before.ids, 10**12], [*map(new.__getitem__, before.samples), "stranger"])
        == 3
    )
    waiting = store.waiting()
    assert dict(zip(waiting.samples, waiting.sources, strict=True)) == {
        "a": "x",
        "b2": "y",
        "b": "y",
    }
    assert store.check() == []


# -- what it holds ---------------------------------------------------------------------------------


def test_labels_leave_out_failures_and_keep_their_order(store: SampleStore) -> None:
    store.record(["c", "a", "b"], [3.0, math.nan, 1.0])
    store.record(["0"], [-2.0])
    samples, rewards = store.labelled()
    assert dict(zip(samples, rewards.tolist(), strict=True)) == {"c": 3.0, "b": 1.0, "0": -2.0}
    assert samples[-1] == "0"
    assert rewards.dtype == np.float64
    assert store.rewards_of(["a", "x", "b"]) == [pytest.approx(math.nan, nan_ok=True), None, 1.0]
    assert store.rewards_of([]) == []


def test_top(store: SampleStore) -> None:
    scored(store).sample(4, pct_argmax=1.0).settle([1.0, 4.0, math.nan, 3.0])
    assert [row["sample"] for row in store.top(2)] == ["s8", "s6"]
    assert [row["reward"] for row in store.top(50)] == [4.0, 3.0, 1.0]
    assert [row["sample"] for row in store.top(3, by="score")] == ["s9", "s8", "s7"]
    assert store.top(0) == []
    row = store.top(1)[0]
    assert row["created_at"] <= row["rewarded_at"] <= dt.datetime.now(dt.timezone.utc)
    for wrong in (-1, 1.5, "2"):
        with pytest.raises(InvalidArgument, match="n "):
            store.top(wrong)  # type: ignore[arg-type]


def test_tables_for_people(store: SampleStore) -> None:
    scored(store).sample(2, pct_argmax=1.0).settle([1.0, math.nan])
    store.add([("a", 1)])
    frame = store.to_pandas()
    assert sorted(frame["text"][:10]) == TEN
    assert frame["reward"].dropna().tolist() == [1.0]
    assert len(frame) == 11
    assert store.to_arrow().column_names == frame.columns.tolist()
    assert store.to_arrow().num_rows == 11


def test_an_empty_store_has_tables_too(store: SampleStore) -> None:
    assert (len(store.to_pandas()), store.to_arrow().num_rows) == (0, 0)
    assert store.labelled()[0] == []
    assert store.waiting().samples == []
    assert (store.top(), store.history(), store.checkpoint("x"), store.newest_predictor()) == (
        [],
        [],
        None,
        None,
    )
    assert (
        store.score(scores_of)
        == store.score(scores_of, only="all")
        == store.score(scores_of, only="stale")
        == 0
    )
    assert store.check() == []


def test_predictor_versions(store: SampleStore) -> None:
    assert store.predictor_state() is None
    assert store.save_predictor(b"one", rows_trained=10) == 1
    metrics = {
        "train_loss": 0.5,
        "valid_loss": math.nan,
        "r2": np.float32(0.5),
        "best": math.nan,
        "n": 3,
    }
    assert store.save_predictor(b"two", rows_trained=20, rows_held_out=2, metrics=metrics) == 2
    first, newest = store.predictors()
    assert newest == store.newest_predictor()
    assert (newest.version, newest.rows_trained, newest.rows_held_out, newest.iteration) == (
        2,
        20,
        2,
        0,
    )
    assert (newest.train_loss, newest.valid_loss, newest.r2, newest.rank_correlation) == (
        0.5,
        None,
        0.5,
        None,
    )
    assert (newest.metrics, newest.size_bytes) == (
        {"best": pytest.approx(math.nan, nan_ok=True), "n": 3},
        3,
    )
    assert (first.version, first.metrics) == (1, {})
    assert abs(newest.trained_at - dt.datetime.now(dt.timezone.utc)) < dt.timedelta(minutes=5)
    assert (store.predictor_state(), store.predictor_state(1)) == (b"two", b"one")


def test_scores_grow_stale_with_a_new_predictor(store: SampleStore) -> None:
    scored(store)
    assert store.score(scores_of, only="stale") == 0
    store.save_predictor(b"", rows_trained=1)
    assert store.score(scores_of) == 0
    assert store.score(lambda samples: -scores_of(samples), only="stale", chunk=3) == 10
    assert hold(store.sample(1, pct_argmax=1.0)).samples == ["s0"]
    assert store.score(scores_of, only="stale") == 0


def test_a_refresh_that_is_interrupted_goes_on(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(store)
    calls: list[int] = []

    def interrupted(samples: list[str]) -> np.ndarray:
        calls.append(len(samples))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return scores_of(samples) + 100

    with pytest.raises(KeyboardInterrupt):
        store.score(interrupted, only="all", chunk=3)
    assert not store.is_refreshed()
    assert len(store.sample(2)) == 2, "draws go on with the old weights"
    assert store.check() == []
    left = 10 - sum(calls[:2])  # some of them may just have been drawn
    assert left - 2 <= store.score(scores_of, only="stale") <= left
    assert store.is_refreshed()
    assert store.check() == []


def test_checkpoints_and_history(store: SampleStore) -> None:
    store.log_metrics(3, {"loss": 1.0, "best": math.nan})
    store.log_metrics(3, {"loss": 2.0, "n": 5, "f": np.float32(0.25)})
    store.log_metrics(1, {"loss": 9.0, "inf": math.inf})
    store.log_metrics(2, {})
    values = [(row["iteration"], row["name"], row["value"]) for row in store.history()]
    expected = [
        *[(1, "inf", math.inf), (1, "loss", 9.0)],
        *[(3, "best", math.nan), (3, "f", 0.25), (3, "loss", 2.0), (3, "n", 5.0)],
    ]
    assert [(i, name) for i, name, _ in values] == [(i, name) for i, name, _ in expected]
    assert [value for *_, value in values] == pytest.approx(
        [value for *_, value in expected], nan_ok=True
    )
    store.sample(0).settle(checkpoint={"agent": b"1", "rng": b"\0\xff"})
    store.sample(0).settle(checkpoint={"agent": b"2"})
    assert store.checkpoint("agent") == (2, b"2")
    assert store.checkpoint("rng") == (1, b"\0\xff")


# -- opened again, and shared ----------------------------------------------------------------------


@pytest.mark.slow
def test_reopening_keeps_everything(store_url: str) -> None:
    with open_store(store_url, name="run", seed=2**70, weighting=Softmax(0.5)) as store:
        scored(store, [*TEN, "s99"])
        store.sample(3, pct_argmax=0.4).settle(
            [1.0, math.nan, 2.0], checkpoint={"a": b"x"}, metrics={"m": 1.0}
        )
        open_batch = store.sample(2)
        before = everything(store)
        expected = open_batch.samples
    with open_store(store_url, name="run", seed=2**70, weighting=Softmax(0.5)) as store:
        assert everything(store) == before
        assert store.stats().claimed == 2, "the process is alive: its batch stays claimed"
        open_batch.settle([5.0, 6.0])
        assert store.rewards_of(expected) == [5.0, 6.0]
        assert store.check() == []
    inside.database_of(open_batch).close()


def everything(store: SampleStore) -> str:
    waiting = store.waiting()
    return repr(
        [
            store.stats(),
            waiting.samples,
            waiting.sources,
            waiting.weights,
            store.history(),
            store.labelled(),
        ]
    )


def test_other_settings_are_refused_and_leave_no_connection(store_url: str) -> None:
    open_store(store_url, seed=3).close()
    for other in (
        {"seed": 4},
        {"mode": "replay"},
        {"weighting": "uniform"},
        {"weighting": Softmax(2.0)},
    ):
        with pytest.raises(SettingsMismatch):
            open_store(store_url, **{"seed": 3, **other})


def test_stores_of_other_names_do_not_see_each_other(new_store: OpenStore) -> None:
    one, two = new_store(name="one"), new_store(name="two", weighting="uniform")
    scored(one)
    assert two.add(TEN[:3], source="other") == AddResult(added=3)
    batch = two.sample(2)
    assert one.add(batch.samples) == AddResult(duplicates=2)
    batch.settle([1.0, 2.0], metrics={"m": 1.0}, checkpoint={"c": b""})
    two.save_predictor(b"", rows_trained=0)
    assert one.rewards_of(batch.samples) == [None, None]
    assert (len(one), len(two), one.iteration, two.iteration) == (10, 1, 0, 1)
    assert (one.history(), one.checkpoint("c"), one.newest_predictor(), one.labelled()[0]) == (
        [],
        None,
        None,
        [],
    )
    one.remove(two.waiting().ids.tolist())
    assert (len(one), len(two)) == (10, 1)
    one.score(lambda samples: np.full(len(samples), -5.0), only="all")
    assert hold(one.sample(-1)).ids.tolist() != []
    assert one.check() == two.check() == []


def test_a_claim_of_another_process_does_not_stop_the_race(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process draws beyond the clock that a transaction has read, which then lets its
    samples join.
    """
    with (
        open_store(postgresql_url, weighting="uniform") as store,
        open_store(postgresql_url, weighting="uniform") as other,
    ):
        store.add(TEN)
        lock_race = Transaction.lock_race

        def slow(self: Transaction, **more: Any) -> Any:
            state = lock_race(self, **more)
            if self.buffer is inside.handle_of(store):
                monkeypatch.setattr(Transaction, "lock_race", lock_race)
                with concurrent.futures.ThreadPoolExecutor() as another:  # this one is writing
                    another.submit(lambda: other.sample(9).settle()).result()
            return state

        monkeypatch.setattr(Transaction, "lock_race", slow)
        store.add([f"late {i}" for i in range(100)])
        drawn = [store.sample(20) for _ in range(6)]
        assert sum(map(len, drawn)) == 101
        assert all(
            ((b.info.probability > 0) & (b.info.probability <= 1)).all() for b in drawn if len(b)
        )
        assert store.check() == []


def test_four_claims_are_open_at_the_same_time(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each passes over the rows that the others have locked; one that waited would give up after
    ten seconds.
    """
    with open_store(postgresql_url, weighting="uniform") as store, contextlib.ExitStack() as stack:
        store.add([f"s{i}" for i in range(40)])
        drawn: list[str] = []
        for name in ("one", "two", "three", "four"):
            monkeypatch.setattr(
                workers, "_worker_id", lambda pid, name=name: name
            )  # as if it were another process
            other = inside.handle_of(
                stack.enter_context(open_store(postgresql_url, weighting="uniform"))
            )
            connection = stack.enter_context(other.database._engine("writer").begin())
            connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
            tx = Transaction(connection, other)
            batch = core_draw._draw(tx, n=10)
            drawn += hold(batch).samples  # type: ignore[arg-type]
            assert len(store) == 40, "no process has committed"
        assert sorted(drawn) == sorted(store.waiting().samples)
        monkeypatch.undo()
        stack.close()
        assert (len(store), store.stats().claimed, store.check()) == (0, 40, [])


DYING_WORKER = """
import os, signal, sys
sys.path[:0] = sys.argv[2].split(os.pathsep)
from helpers.samples import scores_of
from sqlbuffer import open_store
from sqlbuffer.core.transaction import Transaction
store = open_store(sys.argv[1], name="run", mode=sys.argv[3])
store.add(["s%d" % i for i in range(100)])
store.score(scores_of)
store.sample(5).settle([1.0] * 5)
batch = store.sample(7, pct_argmax=0.3)
print(*batch.samples, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_batch_of_a_killed_process_comes_out_again(store_url: str) -> None:
    command = [sys.executable, "-c", DYING_WORKER, store_url, os.pathsep.join(sys.path), "consume"]
    worker = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert worker.returncode == -signal.SIGKILL, worker.stderr
    with open_store(store_url, name="run") as store:
        stats = store.stats()
        assert (stats.claimed, stats.waiting, stats.iteration, stats.measured) == (0, 95, 1, 5)
        batch = store.sample(7, pct_argmax=0.3)
        assert batch.samples == worker.stdout.split()
        assert batch.iteration == 1
        batch.settle([2.0] * 7)
        assert store.check() == []


@pytest.mark.slow
def test_a_batch_of_a_living_process_is_not_taken(store_url: str) -> None:
    script = DYING_WORKER.replace("os.kill(os.getpid(), signal.SIGKILL)", "sys.stdin.read()")
    command = [sys.executable, "-c", script, store_url, os.pathsep.join(sys.path), "consume"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        claimed = worker.stdout.readline().split()
        with open_store(store_url, name="run") as store:
            assert store.stats().claimed == 7
            assert not set(hold(store.sample(-1)).samples) & set(claimed)
            worker.kill()
            worker.wait()
        with open_store(store_url, name="run") as store:
            assert sorted(hold(store.sample(-1)).samples) == sorted(claimed)
            assert store.check() == []


def test_a_fork_has_connections_and_claims_of_its_own(store_url: str) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add(TEN)
        ours = store.sample(2)
        child = os.fork()
        if child == 0:
            try:
                store.sample(3).settle([1.0] * 3)
                _held = store.sample(2)
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        ours.settle([2.0, 2.0])
        assert (len(store), store.stats().claimed, store.iteration) == (3, 2, 2)
        with open_store(store_url, weighting="uniform") as again:
            assert (len(again), again.stats().claimed) == (5, 0)
            assert again.check() == []


def test_threads_share_a_store(new_store: OpenStore) -> None:
    store = scored(new_store(), [f"s{i}" for i in range(400)])
    drawn: list[Batch] = []
    failures: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for step in range(6):
                store.add([f"s{1000 + 100 * i + step}", "s1000"], requeue=True)
                store.score(scores_of)
                batch = store.sample(10, pct_argmax=0.2)
                if step == 3:
                    batch.release()
                else:
                    batch.settle([1.0] * len(batch))
                    drawn.append(batch)
                store.stats()
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    settled = [sample for batch in drawn for sample in batch.samples]
    assert len(settled) == 300
    once = [sample for sample in settled if sample != "s1000"]
    assert len(set(once)) == len(once), "only s1000 was added again after it had been drawn"
    assert store.iteration == 30
    assert store.check() == []


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.5, pytest.param(20.0, marks=pytest.mark.soak)])
def test_writers_that_meet_do_not_fail(new_store: OpenStore, seconds: float) -> None:
    """Duplicates are added while their batches are settled, standardised and refreshed: all touch
    the same rows.
    """
    samples = [f"s{i}" for i in range(600)]
    stores = [scored(new_store(), samples), *(new_store() for _ in range(3))]
    failures: list[BaseException] = []
    stop = threading.Event()

    def repeat(work: Callable[[], Any]) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as exc:
            failures.append(exc)
            stop.set()

    def replace() -> None:
        waiting = stores[2].waiting()
        half = min(len(waiting.ids) // 2, 50)
        stores[2].replace(waiting.ids[:half].tolist(), waiting.samples[half : 2 * half])

    def draw() -> None:
        batch = stores[0].sample(60)
        batch.settle([1.0] * len(batch))

    works = [
        draw,
        lambda: stores[1].add(samples, requeue=True),
        replace,
        lambda: stores[3].score(scores_of, only="all", chunk=100),
    ]
    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert stores[0].check() == []


def test_the_ledger_keeps_the_counts_of_dead_workers(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        inside.act_as(monkeypatch, f"dead {i}")
        with open_store(store_url, weighting="uniform") as store:
            store.add([f"{i} {sample}" for sample in TEN])
            store.sample(3).settle([1.0] * 3)
            died = (
                sa.update(workers_table)
                .where(workers_table.c.id == f"dead {i}")
                .values(process_started_at=1.0)
            )
            inside.execute(store, died)
    inside.act_as(monkeypatch, "alive")
    with open_store(store_url, weighting="uniform") as store:
        rows = inside.scalars(store, sa.select(workers_table.c.id))
        assert rows == [workers.LEDGER]
        stats = store.stats()
        assert (stats.waiting, stats.measured, stats.drawn, stats.iteration) == (21, 9, 9, 3)
        assert store.check() == []


@pytest.mark.slow
def test_the_audit_finds_what_is_wrong(new_store: OpenStore) -> None:
    for i, harm in enumerate(
        [
            "DELETE FROM {}pool WHERE buffer_id = {}",
            "UPDATE {}samples SET queued = NOT queued WHERE buffer_id = {}",
            "UPDATE {}pool SET weight = weight * 2 WHERE buffer_id = {}",
            "UPDATE {}pool SET weight = NULL WHERE buffer_id = {}",
            "UPDATE {}batches SET size = size + 1 WHERE buffer_id = {}",
            "UPDATE {}samples SET reward = 1 WHERE buffer_id = {} AND reward IS NULL",
            "UPDATE {}batches SET worker_id = 'stranger' WHERE buffer_id = {}",
            "UPDATE {}workers SET added = added + 1 WHERE buffer_id = {}",
        ]
    ):
        store = scored(new_store(name=str(i)))
        store.sample(3).settle([1.0, 2.0, 3.0])
        _held = store.sample(2)
        assert store.check() == []
        schema = f"{schema}." if (schema := inside.backend_of(store).schema) else ""
        sql = harm.format(schema, inside.buffer_id(store))
        inside.database_of(store).write(lambda c, sql=sql: c.exec_driver_sql(sql))
        assert store.check() != [], harm


# -- a fresh buffer --------------------------------------------------------------------------------


def test_a_fresh_buffer_takes_the_next_free_name(new_store: OpenStore) -> None:
    names = [new_store(name="run", fresh=True, seed=seed).name for seed in range(3)]
    assert names == ["run", "run-2", "run-3"]
    assert new_store(name="run-2", seed=1).name == "run-2"
    assert new_store(name="run-2", fresh=True, seed=9).name == "run-2-2"
    with pytest.raises(InvalidArgument, match="needs a name"):
        new_store(name="", fresh=True)


def test_a_fresh_buffer_is_shared_with_no_other_process(
    new_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_store(name="run")
    names = attach._names
    seen = []

    def before_another_takes_one(connection: sa.Connection) -> Sequence[str]:
        seen.append(names(connection))
        return [name for name in seen[-1] if name != "run"] if len(seen) == 1 else seen[-1]

    monkeypatch.setattr(attach, "_names", before_another_takes_one)
    assert new_store(name="run", fresh=True).name == "run-2"
    assert len(seen) == 2


# -- checkpoints -----------------------------------------------------------------------------------


def test_as_many_checkpoints_stay_as_are_kept(store: SampleStore) -> None:
    kept = {"two": 2, "all": None}
    for i in range(4):
        with store.sample(0) as batch:
            batch.settle(checkpoint=dict.fromkeys(("one", *kept), b"%d" % i), kept=kept)
    store.save_checkpoints({"two": b"again"}, iteration=4, kept=kept)
    assert store.checkpoints("one") == [(4, b"3")]
    assert store.checkpoints("two") == [(3, b"2"), (4, b"again")]
    assert [iteration for iteration, _ in store.checkpoints("all")] == [1, 2, 3, 4]
    assert store.checkpoint("all") == (4, b"3")
    assert store.checkpoints("none") == []


def test_samples_are_found_by_number(store: SampleStore) -> None:
    store.add(["a", ("b", 1)])
    ids = store.waiting().ids.tolist()
    assert store.samples_of([ids[1], ids[0], ids[1]]) == {ids[0]: "a", ids[1]: ("b", 1)}
    assert store.samples_of([]) == {}


@dataclasses.dataclass
class Unregistered:
    x: int


@pytest.mark.parametrize(
    ("odd", "shown"),
    [
        (object(), r"<object object at .*>: builtins\.object is not a supported type"),
        (Unregistered(7), r"Unregistered\(x=7\): .*is not registered"),
        ([1, {"a": Unregistered(7)}], r"\[1, \{'a': Unregistered\(x=7\)\}\]: .*is not registered"),
        ((1, Decimal("1E+99999")), r"\(1, Decimal\('1E\+99999'\)\): a Decimal about"),
        (OrderedDict(a=1), r"OrderedDict.*: an OrderedDict equals a dict"),
        (
            enum.IntEnum("Rank", "LOW").LOW,
            r"<Rank.LOW: 1>: .*Rank is not registered",
        ),  # it has a hash, but no codec
    ],
)
def test_an_error_says_which_sample_it_is_about(
    new_store: OpenStore, odd: Any, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(add, "CHUNK", 3)
    samples = ["b", "a", "c", "d", "a", odd, "e"]
    plain, keyed = (
        new_store(),
        new_store(name="keyed", key=lambda sample: None if sample == "d" else sample),
    )
    for store in (plain, keyed):
        with pytest.raises(
            (UnsupportedType, InvalidArgument), match=f"^sample 5, {shown}"
        ) as caught:
            store.add(samples)
        assert len(str(caught.value).splitlines()) == 1
        assert len(store) == 3
        with pytest.raises((UnsupportedType, InvalidArgument), match=f"^sample 1, {shown}"):
            store.record(["a", odd], [1.0, 2.0])
        assert store.stats().measured == 0
    with pytest.raises((UnsupportedType, InvalidArgument)):
        plain.replace(plain.waiting().ids[:2].tolist(), ["z", odd])
    assert sorted(plain.waiting().samples) == ["a", "b", "c"]


def test_a_key_is_called_outside_of_transactions(store_url: str) -> None:
    """It may be slow, and may itself write: to the same file, by another store."""
    with open_store(store_url, name="seen", weighting="uniform") as seen:

        def key(sample: str) -> str:
            seen.add([sample])
            return sample.lower()

        with open_store(store_url, weighting="uniform", key=key) as store:
            store.add(["A", "B", "C"])
            ids = store.waiting().ids.tolist()
            assert store.replace(ids[:1], ["D"]) == 1
            store.record(["E"], [1.0])
            with store.sample(1) as batch:
                batch.settle([1.0], record=(["F"], [2.0], "lab"))
        assert sorted(seen.waiting().samples) == list("ABCDEF")
