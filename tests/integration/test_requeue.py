"""What `add` does with samples that are stored: they wait, stay out, or wait again."""

import dataclasses
import math
import random
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.commands import run
from helpers.samples import scores_of
from sqlbuffer.core import add, evict
from sqlbuffer.db.schema import buffers, samples
from sqlbuffer.errors import InvalidArgument, SettingsMismatch, SqlBufferError
from sqlbuffer.maintenance.repair import repair
from sqlbuffer.records import AddResult
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training import Buffer

NewStore = Callable[..., SampleStore]


def total(result: AddResult) -> int:
    """The number of samples that a result accounts for."""
    counts = (result.added, result.requeued, result.duplicates, result.known, result.refused)
    assert result.refused == len(result.refused_at)
    return sum(counts)


def evicted_in(store: SampleStore) -> set[str]:
    marked = sa.select(samples.c.text).where(
        samples.c.buffer_id == inside.buffer_id(store), samples.c.evicted
    )
    return set(inside.scalars(store, marked))


# -- every state -----------------------------------------------------------------------------------


def wait(store: SampleStore) -> None:
    store.add(["s5"])
    store.score(scores_of)


def settle(store: SampleStore, *rewards: list[float]) -> None:
    wait(store)
    with store.sample(1) as batch:
        batch.settle(*rewards)


def remove(store: SampleStore) -> None:
    wait(store)
    assert store.remove(store.waiting().ids.tolist()) == 1


def leave(store: SampleStore) -> None:
    """At most one sample waits, and another one is added."""
    wait(store)
    store.add(["s9"])
    store.score(scores_of)
    assert store.waiting().samples == ["s9"]
    assert evicted_in(store) == {"s5"}


def leave_and_record(store: SampleStore, reward: float) -> None:
    leave(store)
    store.record(["s5"], [reward])
    assert evicted_in(store) == set()


def requeue_and_leave(store: SampleStore) -> None:
    settle(store, [1.0])
    store.add(["s5"], requeue=True)
    store.score(scores_of)
    leave(store)


STATES: dict[str, tuple[Callable[[SampleStore], object], str]] = {
    "new": (lambda store: None, "added"),
    "waiting": (wait, "duplicates"),
    "claimed": (lambda store: (wait(store), hold(store.sample(1))), "duplicates"),
    "released": (lambda store: (wait(store), store.sample(1).release()), "duplicates"),
    "measured": (lambda store: settle(store, [1.0]), "known"),
    "failed": (lambda store: settle(store, [math.nan]), "known"),
    "settled without a reward": (settle, "known"),
    "recorded": (lambda store: store.record(["s5"], [1.0]), "known"),
    "removed": (remove, "known"),
    "evicted": (leave, "requeued"),
    "evicted, then measured": (lambda store: leave_and_record(store, 1.0), "known"),
    "evicted, then failed": (lambda store: leave_and_record(store, math.nan), "known"),
    "measured, requeued, evicted": (requeue_and_leave, "requeued"),
}
"""How a sample comes into a state, and what adding it counts as."""

DRAWN = {"measured", "failed", "settled without a reward"}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("weighting", ["shift", "uniform"])
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_every_state(new_store: NewStore, mode: str, weighting: str, state: str) -> None:
    for requeue in (False, True):
        options = {"mode": mode, "weighting": weighting, "max_size": 1, "fresh": True}
        store = new_store(**options)
        come, counts_as = STATES[state]
        come(store)
        if mode == "replay" and state in DRAWN:
            counts_as = "duplicates"  # it has not left the pool
        if requeue and counts_as == "known":
            counts_as = "requeued"
        before = store.stats()
        assert store.add(["s5"], requeue=requeue) == AddResult(**{counts_as: 1}), requeue
        waits = "s5" in store.waiting().samples
        if counts_as == "known":
            assert not waits
            assert dataclasses.replace(store.stats(), score_version=0) == before
            assert store.add(["s5", "s5"], requeue=requeue) == AddResult(known=1, duplicates=1)
        elif weighting == "shift":  # a uniform pool evicts the older of two at once
            assert waits == (state != "claimed" or mode == "replay")
            assert evicted_in(store) == set()
            assert store.add_one("s5", requeue=requeue) == AddResult(duplicates=1)
        assert store.check() == []


def test_requeue_is_a_flag(store: SampleStore) -> None:
    for call in (lambda: store.add(["s1"], requeue="no"), lambda: Buffer(1.0, requeue=1)):  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="requeue"):
            call()
    assert len(store) == 0


def test_replace_puts_back_what_was_measured(store: SampleStore) -> None:
    settle(store, [1.0])
    store.add(["s7"])
    assert store.replace(store.waiting().ids.tolist(), ["s5"]) == 1
    assert store.waiting().samples == ["s5"]
    assert store.add(["s7"]) == AddResult(known=1), "it was replaced"


# -- the sum ---------------------------------------------------------------------------------------


def states_of(store: SampleStore, given: list[str]) -> dict[str, str]:
    """What adding each of these samples counts as, by the stored rows."""
    rows = inside.rows(store, sa.select(samples.c.text, samples.c.queued, samples.c.evicted))
    counts_as = {
        text: "duplicates" if queued else "requeued" if evicted else "known"
        for text, queued, evicted in rows
    }
    return {sample: counts_as.get(sample, "added") for sample in given}


@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("weighting", ["shift", "uniform"])
@pytest.mark.parametrize("kind", ["lightest", "oldest"])
@pytest.mark.slow
def test_each_sample_given_is_counted_once(
    new_store: NewStore, kind: str, weighting: str, mode: str
) -> None:
    rng = random.Random(f"{kind} {weighting} {mode}")
    store = new_store(
        key=lambda sample: None if sample == "s13" else sample,
        **{"mode": mode, "weighting": weighting, "evict": kind, "max_size": 8},
    )
    seen: set[str] = set()
    for _ in range(25):
        given = [f"s{rng.randrange(30)}" for _ in range(rng.randrange(15))]
        requeue = rng.random() < 0.3
        expected = states_of(store, [sample for sample in given if sample != "s13"])
        result = store.add(given, requeue=requeue)
        assert total(result) == len(given)
        assert result.refused_at == tuple(i for i, sample in enumerate(given) if sample == "s13")
        counts = list(expected.values())
        n_known, n_requeued = counts.count("known"), counts.count("requeued")
        assert result.added == counts.count("added")
        assert (result.known, result.requeued) == (
            (0, n_requeued + n_known) if requeue else (n_known, n_requeued)
        )
        seen |= set(counts)
        if rng.random() < 0.7:
            store.score(scores_of)
        with store.sample(3) as batch:
            rewards = rng.choice([None, [], [1.0] * len(batch)])
            batch.settle(rewards or None) if rewards is not None else batch.release()
        if rng.random() < 0.3:
            store.remove(store.waiting().ids[:1].tolist())
        assert store.check() == []
    assert seen == {"added", "duplicates", "known", "requeued"}


def test_chunks_are_counted_together(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions are those in the call, whatever chunks a call is divided into."""
    inside.handle_of(store).__dict__["key"] = lambda sample: None if "x" in sample else sample
    settle(store, [1.0])
    monkeypatch.setattr(add, "CHUNK", 3)
    given = ["x0", "s5", "s1", "s1", "x4", "s5", "s2", "x7"]
    result = store.add(given)
    assert result == AddResult(added=2, known=2, duplicates=1, refused_at=(0, 4, 7))
    assert (result.refused, total(result)) == (3, len(given))
    recorded = store.record(["x", "s6", "x", "s6", "s7"], [math.nan, math.nan, 1.0, 2.0, 3.0])
    assert recorded == AddResult(added=2, duplicates=1, refused_at=(0, 2))
    assert store.rewards_of(["s6", "s7"]) == [2.0, 3.0]
    assert store.stats().refused == 5


# -- eviction --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["shift", "uniform"])
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_the_oldest_leave(new_store: NewStore, mode: str, weighting: str) -> None:
    """One in a hundred more than must, and first what was stored first, whatever its score."""
    store = new_store(mode=mode, weighting=weighting, max_size=200, evict="oldest")
    order = random.Random(0).sample(range(1000), 230)
    for sample in order:
        store.add([f"s{sample}"])
    store.score(scores_of)
    left = [f"s{sample}" for sample in order]
    if weighting == "uniform":  # each add is one eviction: 3 leave when there are 201
        assert store.waiting().samples == left[30:]
    else:
        assert store.waiting().samples == left[32:], "2 more than must"
    gone = set(left) - set(store.waiting().samples)
    assert evicted_in(store) == gone
    assert store.stats().removed == len(gone)
    assert store.stats().evict == "oldest"
    assert store.check() == []


def test_the_lightest_leave_unless_told_otherwise(new_store: NewStore) -> None:
    left = {}
    for kind in ("lightest", "oldest"):
        store = new_store(name=kind, max_size=5, evict=kind)
        for sample in ("s9", "s8", "s7", "s1", "s2", "s3", "s4"):
            store.add([sample])
        store.score(scores_of)
        left[kind] = sorted(store.waiting().samples)
    assert left == {
        "lightest": ["s3", "s4", "s7", "s8", "s9"],
        "oldest": ["s1", "s2", "s3", "s4", "s7"],
    }


@pytest.mark.parametrize("kind", ["lightest", "oldest"])
def test_unscored_samples_that_are_too_many_leave_as_evicted(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(evict, "MOST_UNSCORED", 10)
    store = new_store(max_size=3, evict=kind)
    for i in range(12):
        store.add([f"s{i}"])
    assert store.waiting().samples == [f"s{i}" for i in range(2, 12)]
    assert evicted_in(store) == {"s0", "s1"}
    assert store.add(["s1", "s2"]) == AddResult(requeued=1, duplicates=1)
    assert "s1" not in store.waiting().samples, "it is as old as when it was first stored"
    assert store.check() == []


@pytest.mark.parametrize("kind", ["lightest", "oldest"])
@pytest.mark.parametrize("weighting", ["shift", "uniform"])
def test_adding_the_library_again_leaves_the_same_pool(
    new_store: NewStore, weighting: str, kind: str
) -> None:
    store = new_store(max_size=50, weighting=weighting, evict=kind)
    library = [f"s{i}" for i in random.Random(0).sample(range(1000), 120)]
    store.add(library)
    store.score(scores_of)
    left = store.waiting().samples
    for _ in range(3):
        result = store.add(library)
        assert (result.requeued, result.duplicates, result.known) == (70, 50, 0)
        store.score(scores_of)
        assert store.waiting().samples == left
    assert store.check() == []


# -- the setting -----------------------------------------------------------------------------------


def test_evict_is_stored_with_the_buffer(new_store: NewStore) -> None:
    assert new_store(name="usual").stats().evict == "lightest"
    assert new_store(name="old", evict="oldest").stats().evict == "oldest"
    assert new_store(name="old").stats().evict == "oldest"
    with pytest.raises(
        SettingsMismatch,
        match=r"'old' is stored with evict='oldest', but was opened with evict='lightest': .*copy",
    ):
        new_store(name="old", evict="lightest")
    with pytest.raises(SettingsMismatch, match="evict='oldest'"):
        new_store(name="usual", evict="oldest")
    with pytest.raises(InvalidArgument, match='"lightest", "oldest"'):
        new_store(name="other", evict="newest")


def test_a_copy_takes_evict_over_or_has_another(store_url: str) -> None:
    with open_store(store_url, max_size=2, evict="oldest") as store:
        for sample in ("s3", "s2", "s1"):
            store.add([sample])
        store.score(scores_of)
        with store.copy("same") as same, store.copy("light", evict="lightest") as light:
            assert [it.stats().evict for it in (same, light)] == ["oldest", "lightest"]
            for it, left in ((same, ["s1", "s0"]), (light, ["s2", "s1"])):
                assert evicted_in(it) == {"s3"}
                it.add(["s0"])
                it.score(scores_of)
                assert sorted(it.waiting().samples, reverse=True) == left
                assert it.check() == []
    assert run("copy", "default", "more", "--evict", "lightest", url=store_url).code == 0
    with open_store(store_url, name="more", max_size=2, evict="lightest") as more:
        assert more.check() == []


def test_a_wrong_value_of_evict_is_found(new_store: NewStore) -> None:
    store = new_store(max_size=2)
    inside.execute(store, sa.update(buffers).values(evict="newest"))
    assert store.check() == [
        "the buffer is stored with evict 'newest', which is none of lightest, oldest."
    ]
    with pytest.raises(SqlBufferError, match="evict='newest'"):
        new_store(evict="oldest")


def test_an_evicted_sample_that_waits_is_found_and_repaired(new_store: NewStore) -> None:
    store = new_store(max_size=1)
    leave(store)
    inside.execute(store, sa.update(samples).values(evicted=True))
    assert store.check() == ["1 sample is marked as evicted and as queued at once."]
    done = inside.handle_of(store).write(repair)
    assert done == ["1 marks of an eviction were removed from samples that wait or are claimed."]
    assert store.check() == []
    assert evicted_in(store) == {"s5"}


@pytest.mark.parametrize(
    ("reward", "again"),
    [
        (math.nan, lambda store: store.retry()),
        (1.0, lambda store: store.remeasure("another")),
    ],
)
def test_what_waits_again_is_no_longer_evicted(
    new_store: NewStore, reward: float, again: Callable[[SampleStore], object]
) -> None:
    store = new_store(max_size=1)
    settle(store, [reward])
    store.add(["s5"], requeue=True)
    store.score(scores_of)
    leave(store)
    again(store)
    assert "s5" in store.waiting().samples
    assert evicted_in(store) == set()
    assert store.check() == []


# -- copies of an earlier moment -------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_copy_of_an_earlier_moment_knows_what_was_evicted(new_store: NewStore, mode: str) -> None:
    store = new_store(max_size=4, mode=mode)
    store.add([f"s{i}" for i in range(1, 7)])
    store.score(scores_of)
    assert evicted_in(store) == {"s1", "s2"}
    with store.sample(1, pct_argmax=1.0) as batch:
        batch.settle([1.0])
    assert batch.samples == ["s6"]
    with store.sample(1, pct_argmax=1.0) as batch:  # iteration 1
        batch.settle([1.0])
    store.add(["s6", "s1"], requeue=True)
    store.add([f"s1{i}" for i in range(4)])
    store.score(lambda given: [100.0 - int(sample[1:]) for sample in given])
    store.add([f"s2{i}" for i in range(8)])
    store.score(scores_of)
    with store.copy("now") as now:
        assert evicted_in(now) == evicted_in(store)
        assert evicted_in(now) - {"s1", "s2"}
        assert now.check() == []
    with store.copy("then", at_iteration=1) as then:
        stored = inside.scalars(
            then, sa.select(samples.c.text).where(samples.c.buffer_id == inside.buffer_id(then))
        )
        assert set(stored) == {f"s{i}" for i in range(1, 7)}
        gone = set(stored) - set(then.waiting().samples)
        assert evicted_in(then) == gone - ({"s6"} if mode == "consume" else set())
        assert then.check() == []
        result = then.add(sorted(stored))
        assert total(result) == 6
        assert result.known == (mode == "consume" and "s6" in gone)
        assert result.requeued == len(evicted_in(store) & set(stored) - {"s6"}) or mode == "replay"
        assert then.check() == []


# -- the callbacks ---------------------------------------------------------------------------------


def test_a_callback_requeues_unless_told_otherwise(store_url: str) -> None:
    found = {}
    for name, options in (("loop", {}), ("once", {"requeue": False})):
        buffer = Buffer(1.0, url=store_url, name=name, max_size=7, evict="oldest", **options)  # type: ignore[arg-type]
        buffer.add(["s1", "s2"], "gen")
        buffer.sample(2)
        found[name] = buffer.add(["s1", "s2", "s3"], "gen")
        assert (buffer.store.stats().max_size, buffer.store.stats().evict) == (7, "oldest")
        buffer.close()
    assert found == {
        "loop": AddResult(added=1, requeued=2),
        "once": AddResult(added=1, known=2),
    }
