"""Measurements: each is kept with its reward or error; failures, attempts and retries."""

import concurrent.futures
import json
import math
import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from helpers import inside
from helpers.cleanup import hold
from helpers.commands import Result, run
from helpers.forked import forkserver
from helpers.loops import environment
from helpers.samples import scores_of
from sqlbuffer.cli import buffers as buffers_command
from sqlbuffer.cli.main import app
from sqlbuffer.core import draw
from sqlbuffer.core.attempts import Ending
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.claim import Terms
from sqlbuffer.db.schema import measurements, samples
from sqlbuffer.errors import ClaimLost, InvalidArgument, InvalidReward
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training.buffer import Buffer

OpenStore = Callable[..., SampleStore]
TEN = [f"s{i}" for i in range(10)]


@pytest.fixture(params=["consume", "replay"])
def scored(new_store: OpenStore, request: pytest.FixtureRequest) -> SampleStore:
    store = new_store(mode=request.param)
    store.add(TEN)
    store.score(scores_of)
    return store


def kept(store: SampleStore) -> list[tuple[Any, ...]]:
    """Text of the sample, reward, error, seconds, details of all measurements, in their order."""
    m = measurements.c
    columns = (samples.c.text, m.reward, m.error, m.seconds, m.details)
    query = sa.select(*columns).join(samples, samples.c.id == m.sample_id).order_by(m.id)
    return [tuple(row) for row in inside.rows(store, query)]


ERRORS = [None, "no conformer", None, None]
REWARDS = [1.5, None, math.nan, -2.0]
STORED = [
    (1.5, None, 0.25, {"pose": 3}),
    (None, "no conformer", None, None),
    (None, "the reward is NaN", 2.0, None),
    (-2.0, None, None, None),
]
MORE: dict[str, Any] = {
    "errors": ERRORS,
    "seconds": [0.25, None, 2.0, math.nan],
    "details": [{"pose": np.int64(3)}, None, None, None],
}


def by_report(store: SampleStore) -> list[str]:
    batch = store.sample(4)
    for i in range(4):
        more = {name: values[i : i + 1] for name, values in MORE.items()}
        assert batch.report(batch.ids[i : i + 1], REWARDS[i : i + 1], **more) == 3 - i
    return batch.samples


def by_settle(store: SampleStore) -> list[str]:
    batch = store.sample(4)
    batch.settle(REWARDS, **MORE)
    return batch.samples


def by_settling_the_rest(store: SampleStore) -> list[str]:
    """A reward that is given again is not measured again."""
    batch = store.sample(4)
    first = {name: values[:2] for name, values in MORE.items()}
    assert batch.report(batch.ids[:2], REWARDS[:2], **first, settle=False) == 4
    batch.settle([1.5, None, math.nan, -2.0], **{**MORE, "errors": None})
    return batch.samples


def by_record(store: SampleStore) -> list[str]:
    new = [f"new {i}" for i in range(4)]
    store.record(new, REWARDS, **MORE)
    return new


def by_fail(store: SampleStore) -> list[str]:
    batch = store.sample(4)
    batch.report(batch.ids[:1], [1.5], seconds=[0.25], details=[{"pose": 3}])
    assert batch.fail(batch.ids[1:2], "no conformer") == 2
    batch.settle([math.nan, -2.0], ids=batch.ids[2:], seconds=[2.0, None])
    return batch.samples


@pytest.mark.parametrize(
    "measure", [by_report, by_settle, by_settling_the_rest, by_record, by_fail]
)
def test_every_measurement_is_kept_as_it_was_told(
    scored: SampleStore, measure: Callable[[SampleStore], list[str]]
) -> None:
    measured = measure(scored)
    found = {row[0]: row[1:] for row in kept(scored)}
    assert found == dict(zip(measured, STORED, strict=True))
    assert len(kept(scored)) == 4
    expected = dict(zip(measured, [1.5, math.nan, math.nan, -2.0], strict=True))
    assert scored.rewards_of(measured) == pytest.approx(list(expected.values()), nan_ok=True)
    assert {it["sample"]: it["error"] for it in scored.failed()} == {
        measured[1]: "no conformer",
        measured[2]: "the reward is NaN",
    }
    stats = scored.stats()
    assert (stats.measured, stats.failed, scored.check()) == (2, 2, [])


@pytest.mark.parametrize("has_keys", [False, True], ids=["plain", "keys"])
def test_all_rewards_of_a_sample_in_one_call_are_kept(new_store: OpenStore, has_keys: bool) -> None:
    options = {"key": str.lower, "keep_key": True} if has_keys else {}
    store = new_store(weighting="uniform", **options)
    store.add(["b"])
    again = "A" if has_keys else "a"
    done = store.record(["a", "b", again, "a", "b"], [1.0, None, math.nan, 3.0, 2.0], "lab")
    assert (done.added, done.duplicates) == (1, 4)
    assert [row[:3] for row in kept(store) if row[0] == "b"] == [
        ("b", None, "the reward is None"),
        ("b", 2.0, None),
    ]
    assert [row[1] for row in kept(store) if row[0] == "a"] == [1.0, None, 3.0]
    assert store.rewards_of(["a", "b"]) == [3.0, 2.0]
    numbers = store.stats()
    assert (numbers.measured, numbers.failed, numbers.stored, store.check()) == (2, 0, 2, [])


def test_a_failure_never_replaces_a_reward(scored: SampleStore) -> None:
    for rewards, errors in (([math.nan], ["first"]), ([2.0], None), ([None], ["later"])):
        scored.record(["s0"], rewards, errors=errors)
    assert scored.rewards_of(["s0"]) == [2.0]
    assert [row[1:3] for row in kept(scored)] == [(None, "first"), (2.0, None), (None, "later")]
    assert (scored.failed(), scored.check()) == ([], [])


@pytest.mark.parametrize(
    ("had", "told", "has"),
    [(None, 5.0, 5.0), (math.nan, 5.0, 5.0), (1.0, 5.0, 1.0), (None, None, None), (1.0, None, 1.0)],
)
def test_a_late_reward_is_kept_and_counts_only_where_there_is_none(
    scored: SampleStore, had: float | None, told: float | None, has: float | None
) -> None:
    late = scored.sample(1)
    late.release()
    if had is not None:
        scored.record(late.samples, [had])
    for act in (late.settle, lambda rewards: late.report(late.ids, rewards)):
        with pytest.raises(ClaimLost):
            act([told])
    assert scored.rewards_of(late.samples) == [has]
    told_rewards = [row[1] for row in kept(scored)]
    assert told_rewards[-2:] == [told, told]
    assert scored.check() == []


LATE_REWARDS = [1.0, None, 2.0, 3.0, 4.0]
LATE: dict[str, Callable[[Batch], Any]] = {
    "settle": lambda batch: batch.settle(LATE_REWARDS),
    "report": lambda batch: batch.report(batch.ids, LATE_REWARDS),
    "report to a loop": lambda batch: batch.report(batch.ids, LATE_REWARDS, settle=False),
}


@pytest.mark.parametrize("how", LATE)
def test_a_sample_with_a_late_reward_does_not_wait_for_another(
    scored: SampleStore, how: str
) -> None:
    """Unless a loop draws its batch again, the user has made it wait since, or it replays."""
    late = scored.sample(5)
    late.release()
    claimed, failed, *_, requeued = late.samples
    scored.remove(late.ids[4:])
    scored.add([requeued], requeue=True)
    taken = scored.sample(1)
    assert taken.samples == [claimed]
    before = set(scored.waiting().samples)
    with pytest.raises(ClaimLost):
        LATE[how](late)
    consumes = scored.stats().mode == "consume"
    gone = set(late.samples[2:4]) if consumes and how != "report to a loop" else set()
    assert set(scored.waiting().samples) == before - gone
    stats = scored.stats()
    assert (stats.measured, stats.failed, stats.claimed) == (4, 0, 1)
    assert scored.rewards_of(late.samples) == LATE_REWARDS
    taken.release()
    assert (len(scored), scored.check()) == (10 - len(gone), [])
    assert scored.add(late.samples).known == len(gone)
    assert failed not in gone


def test_a_loop_draws_a_lost_batch_again(sqlite_url: str) -> None:
    """Its rewards are stored late, and the same iteration learns from the same samples."""
    drawn: list[list[str]] = []

    def oracle(asked: list[str]) -> list[float]:
        drawn.append(asked)
        if len(drawn) == 1:
            buffer._batch.release()  # type: ignore[union-attr]
        return [1.0] * len(asked)

    buffer = Buffer(1.0, url=sqlite_url)
    environment(buffer, waiting=9, reward=oracle).fit(3, iters=2, report=0)
    assert drawn[0] == drawn[1]
    assert not set(drawn[1]) & set(drawn[2])
    assert buffer.store.check() == []
    buffer.close()


@pytest.mark.parametrize(
    ("told", "error", "words"),
    [
        ({"errors": ["bad"] * 4}, InvalidReward, r"measurement 0.*reward 1.5.*error 'bad'"),
        ({"errors": ["bad"]}, InvalidArgument, "4 measurements.*1 errors"),
        ({"errors": [None, 3, None, None]}, InvalidArgument, "reason of a failed.*3"),
        ({"errors": [None, "", None, None]}, InvalidArgument, "reason of a failed"),
        ({"seconds": [1.0, -1.0, 0.0, 0.0]}, InvalidArgument, "seconds"),
        ({"seconds": ["a"] * 4}, InvalidArgument, "seconds"),
        ({"seconds": [math.inf] * 4}, InvalidArgument, "seconds"),
        ({"details": [1, None, None, None]}, InvalidArgument, "details"),
        ({"details": [{"a": object()}, None, None, None]}, InvalidArgument, "details"),
    ],
)
def test_what_cannot_be_true_of_a_measurement_stores_nothing(
    scored: SampleStore, told: dict[str, Any], error: type[Exception], words: str
) -> None:
    batch = hold(scored.sample(4))
    for act in (
        lambda: batch.settle(REWARDS, **told),
        lambda: batch.report(batch.ids, REWARDS, **told),
        lambda: scored.record(["a", "b", "c", "d"], REWARDS, **told),
    ):
        with pytest.raises(error, match=words):
            act()
    assert (kept(scored), scored.stats().claimed, scored.check()) == ([], 4, [])


def test_an_error_is_stored_without_nul_and_not_too_long(scored: SampleStore) -> None:
    for error in ("a\0b", "x" * 5_000, "lone \ud800", "line\nline"):
        scored.record([error[:3].encode(errors="replace")], [None], errors=[error])
    stored = [row[2] for row in kept(scored)]
    assert stored == ["a\\0b", "x" * 1_999 + "…", "lone \\ud800", "line\nline"]


@pytest.mark.slow
def test_a_retried_sample_is_first_in_line(new_store: OpenStore) -> None:
    store = new_store()
    store.add(TEN)
    store.score(scores_of)
    batch = store.sample(3)
    batch.settle([None, 1.0, None], errors=["timed out", None, "crashed"])
    failed = store.failed()
    assert {it["sample"] for it in failed} == {batch.samples[0], batch.samples[2]}
    assert store.failed(n=1) == failed[:1]
    assert [it["error"] for it in store.failed(where="error LIKE 'timed%'")] == ["timed out"]
    assert [it["error"] for it in store.failed(where=samples.c.error == "crashed")] == ["crashed"]
    assert store.retry(where="error = 'crashed'") == 1
    assert store.sample(1).samples == [batch.samples[2]]
    assert store.retry(ids=[it["id"] for it in failed]) == 1
    again = store.sample(1)
    assert again.samples == [batch.samples[0]]
    again.settle([4.0])
    assert store.rewards_of(again.samples) == [4.0]
    assert (store.retry(), store.failed(), store.check()) == (0, [], [])
    assert [row[1:3] for row in kept(store) if row[0] == again.samples[0]] == [
        (None, "timed out"),
        (4.0, None),
    ]


def test_a_retry_in_replay_mode_forgets_the_failure(new_store: OpenStore) -> None:
    store = new_store(mode="replay")
    store.add(TEN)
    store.score(scores_of)
    batch = store.sample(2)
    batch.fail(batch.ids, "crashed")
    n = len(set(batch.samples))
    assert (store.stats().failed, store.retry(), store.stats().failed) == (n, n, 0)
    assert (store.failed(), len(store), store.check()) == ([], 10, [])


def test_retried_samples_are_first_in_line_in_either_mode(scored: SampleStore) -> None:
    """Behind released ones of mode "consume"; the others are as likely as before.

    In mode "replay" the retry has changed the race, and released samples stay where they wait.
    """
    failed = scored.sample(2)
    failed.fail(failed.ids, "crashed")
    released = scored.sample(3)
    assert scored.retry() == 2
    released.release()
    first = set(failed.samples)
    if scored.stats().mode == "consume":
        first |= set(released.samples)
    with scored.sample(len(first) + 1) as batch:
        assert set(batch.samples[:-1]) == first
        probability = batch.info.probability
    assert probability[:-1].tolist() == [1.0] * len(first)
    assert 0 < probability[-1] < 1
    assert scored.check() == []


def test_a_wrong_condition_is_explained(scored: SampleStore) -> None:
    for act in (scored.failed, scored.retry):
        for where in ("nonsense = 1", "error; DROP TABLE samples", 3):
            with pytest.raises(InvalidArgument, match="where must be"):
                act(where=where)


ESCAPES = [
    "1=1) OR (1=1",
    "1=1) OR 1=1 --",
    "1=1)) OR ((1=1",
    "1=1) /*",
    "1=1 /*",
    "1=1) UNION SELECT id, hash, reward FROM samples WHERE (1=1",
    "1=1 UNION SELECT 1",
    "(1=1",
    "1=1)",
    "1=1; SELECT 1",
    "'",
    "source = '' || ') OR (1=1",
    'source = ") OR (1=1',
    "source = $a$) OR (1=1",
    "1=1 OR [a) OR (1=1]",
]
"""Conditions that would leave their parentheses, or are not balanced."""

HARMLESS = ["1=1 OR 1=1", "1=1 -- ) OR (", "source = ')' OR '(' <> ' :b'", "(1=1) OR (1=1)"]


def numbers_by(store: SampleStore, act: str, where: Any) -> set[int]:
    """The samples that a method finds by a condition."""
    if act == "labelled_rows":
        return set(store.labelled_rows(where=where).ids.tolist())
    if act == "to_pandas":
        return set(store.to_pandas(["sample_id"], where)["sample_id"].tolist())
    if act == "top":
        return {it["id"] for it in store.top(99, where=where)}
    if act == "failed":
        return {it["id"] for it in store.failed(where=where)}
    before = set(store.waiting().ids.tolist())
    (store.retry if act == "retry" else lambda where: store.remeasure("b", where))(where=where)
    return set(store.waiting().ids.tolist()) - before


ACTS = ["labelled_rows", "to_pandas", "top", "failed", "retry", "remeasure"]


@pytest.mark.slow
@pytest.mark.parametrize("act", ACTS)
def test_every_method_takes_every_form_of_a_condition(new_store: OpenStore, act: str) -> None:
    def found(where: Any) -> list[str]:
        store = new_store(name=f"buffer {len(done)}", weighting="uniform")
        done.append(where)
        store.record(TEN, [float(i) if i % 3 else None for i in range(10)], ["a", "b"] * 5)
        return sorted(store.samples_of(list(numbers_by(store, act, where))).values())

    done: list[Any] = []
    forms: list[Any] = [
        "source = 'a' AND hash IS NOT NULL",
        ("source", "=", "a"),
        [("source", "in", ["a"]), ("state", "in", ["measured", "failed"])],
        samples.c.source == "a",
    ]
    first, *others = [found(where) for where in forms]
    assert first
    assert others == [first] * 3
    assert set(first) < set(TEN)
    with pytest.raises(InvalidArgument, match="a condition must be on one of the columns"):
        found(("nonsense", "=", 1))


@pytest.mark.slow
@pytest.mark.parametrize("act", ACTS)
def test_no_condition_reaches_samples_that_it_is_not_asked_for(
    new_store: OpenStore, act: str
) -> None:
    """Of another buffer, or neither measured nor failed."""
    for name in ("other", "default"):
        store = new_store(name=name, weighting="uniform")
        store.add(TEN)
        with store.sample(4) as batch:
            batch.settle([1.0, 2.0, None, None])
    expected = {
        "labelled_rows": batch.ids[:2],
        "to_pandas": np.append(batch.ids, store.waiting().ids),
        "top": batch.ids[:2],
        "failed": batch.ids[2:],
        "retry": batch.ids[2:],
        "remeasure": batch.ids,
    }[act]
    for where in ESCAPES:
        with pytest.raises(InvalidArgument, match="where must be a condition"):
            numbers_by(store, act, where)
    for where in HARMLESS[:1] if act in ("retry", "remeasure") else HARMLESS:
        assert numbers_by(store, act, where) == set(expected.tolist())
    assert store.check() == []


# -- another reward function -----------------------------------------------------------------------


@pytest.mark.parametrize("where", [None, "reward > 1", samples.c.reward > 1])
def test_another_objective_measures_again_and_keeps_the_earlier_rewards(
    scored: SampleStore, where: Any
) -> None:
    batch = scored.sample(3)
    batch.settle([1.0, None, 3.0])
    scored.record(["known"], [9.0])
    before, waiting = kept(scored), len(scored)
    first, _, third = batch.samples
    again = {first, batch.samples[1], third, "known"} if where is None else {third, "known"}
    already = set(scored.waiting().samples)
    assert (scored.objective, scored.remeasure("affinity", where)) == (
        "reward",
        len(again - already),
    )
    assert set(scored.waiting().samples) == already | again
    assert len(scored) == waiting + len(again - already)
    stats = scored.stats()
    assert (scored.objective, stats.measured, stats.failed, scored.top()) == ("affinity", 0, 0, [])
    assert (kept(scored), scored.failed(), scored.labelled()[0]) == (before, [], [])
    earlier = scored.top(objective="reward")
    assert [(it["sample"], it["reward"]) for it in earlier] == [
        ("known", 9.0),
        (third, 3.0),
        (first, 1.0),
    ]
    assert scored.check() == []
    scored.score(scores_of, only="all") if "known" not in again else None
    scored.record([third], [-5.0])
    assert [(it["sample"], it["reward"]) for it in scored.top()] == [(third, -5.0)]
    assert scored.check() == []


def test_a_late_reward_of_an_earlier_objective_is_not_the_sample_s(scored: SampleStore) -> None:
    late = scored.sample(1)
    late.release()
    scored.remeasure("affinity")
    with pytest.raises(ClaimLost):
        late.settle([5.0])
    assert scored.rewards_of(late.samples) == [None]
    assert [it["reward"] for it in scored.top(objective="reward")] == [5.0]
    assert (scored.top(objective="affinity"), scored.check()) == ([], [])
    with pytest.raises(InvalidArgument, match="never had the objective"):
        scored.top(objective="rewart")


def test_an_objective_is_refused(scored: SampleStore) -> None:
    scored.record(["known"], [9.0])
    assert scored.remeasure("reward") == 0, "a script that is started again"
    assert scored.rewards_of(["known"]) == [9.0]
    for name in ("", 3, None):
        with pytest.raises(InvalidArgument, match="objective"):
            scored.remeasure(name)  # type: ignore[arg-type]
    batch = hold(scored.sample(2))
    with pytest.raises(InvalidArgument, match=r"^1 batch of.* is claimed.*sqlbuffer claims list"):
        scored.remeasure("affinity")
    batch.release()
    scored.remeasure("affinity")
    with pytest.raises(InvalidArgument, match=r"'reward' already.*another name"):
        scored.remeasure("reward")
    assert scored.check() == []


# -- attempts --------------------------------------------------------------------------------------


def die(url: str, counts: bool, claimed: Any) -> None:
    """Claim four samples, start to measure two of them, report one, and die."""
    store = open_store(url)
    batch = draw.claim(inside.handle_of(store), 4, terms=Terms(counts))
    batch._start(batch.ids[:2])
    batch.report(batch.ids[:1], [1.0])
    claimed.send(batch.ids.tolist())
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("counts", [True, False])
def test_a_death_is_an_attempt_at_what_was_started_and_not_reported(
    store_url: str, counts: bool
) -> None:
    processes = forkserver()
    with open_store(store_url) as store:
        store.add(TEN)
        store.score(scores_of)
        deaths: dict[int, int] = {}
        for _ in range(3):
            read, write = processes.Pipe(duplex=False)
            process = processes.Process(target=die, args=(store_url, counts, write))
            process.start()
            write.close()
            with read:
                ids = read.recv()
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
            deaths[ids[1]] = deaths.get(ids[1], 0) + counts
            open_store(store_url).close()  # finds the dead worker
            stored = dict(
                tuple(row)
                for row in inside.rows(store, sa.select(samples.c.id, samples.c.attempts))
            )
            assert {i: n for i, n in stored.items() if n} == {i: n for i, n in deaths.items() if n}
            assert store.check() == []
        # Each time the same sample is second, and the first is measured.
        failed = [(it["id"], it["error"], it["attempts"]) for it in store.failed()]
        assert failed == [(i, "worker died 3 times", 3) for i, n in deaths.items() if n >= 3]


@pytest.mark.parametrize(("on_error", "tries"), [("fail", 1), ("retry", 3)])
def test_a_failed_sample_tells_how_often_it_was_tried(
    new_store: OpenStore, on_error: Any, tries: int
) -> None:
    store = new_store(weighting="uniform", max_attempts=3)
    calls: list[str] = []

    def fail(sample: str) -> float:
        calls.append(sample)
        raise ValueError("broken")

    store.add(["a"])
    store.record(["recorded"], [math.nan])
    for _ in range(2):
        store.measure(fail, on_error=on_error, silent=True)
        failed = {row["sample"]: row for row in store.failed()}
        assert {name: row["tries"] for name, row in failed.items()} == {"a": tries, "recorded": 1}
        attempts = store.to_arrow(["sample", "attempts"]).to_pylist()
        assert {row["sample"]: row["attempts"] for row in attempts} == {
            name: row["attempts"] for name, row in failed.items()
        }
        assert calls == ["a"] * tries
        store.retry([row["id"] for row in store.failed() if row["sample"] == "a"])
        calls.clear()


def test_an_attempt_is_counted_once_and_ends_with_the_sample_s_return(new_store: OpenStore) -> None:
    store = new_store(weighting="uniform")
    store.add(["a"])
    for n in (1, 2):
        batch = store.sample(1)
        batch._start(batch.ids.tolist())
        number = int(batch.ids[0])
        ending = Ending("", "", "no licence", 0.5)
        assert not batch._ended(number, ending)
        assert not batch._ended(number, ending), "it was not started again"
        assert batch.unreported.tolist() == [number]
        batch.release()
        assert attempts_at(store) == [n]
    batch = store.sample(1)
    batch._start(batch.ids.tolist())
    assert batch._ended(int(batch.ids[0]), Ending(how="exit code 3"))
    assert [it["error"] for it in store.failed()] == ["worker died 3 times, last exit code 3"]
    assert kept(store) == [
        ("a", None, "no licence", 0.5, {"failed_try": 1}),
        ("a", None, "no licence", 0.5, {"failed_try": 2}),
        ("a", None, "worker died 3 times, last exit code 3", None, {"failed_tries": 3}),
    ]
    store.add(["a"], requeue=True)
    assert (attempts_at(store), store.failed(), store.check()) == ([0], [], [])


def attempts_at(store: SampleStore) -> list[int]:
    return [row.attempts for row in inside.rows(store, sa.select(samples.c.attempts))]


@pytest.mark.slow
def test_another_objective_and_rewards_that_come_at_the_same_time(
    new_store: OpenStore,
) -> None:
    store = new_store(weighting="uniform")
    store.add([f"s{i}" for i in range(50)])

    def record(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(20):
            names = [f"s{i}" for i in rng.integers(0, 50, 5)]
            store.record(names, rng.choice([1.0, math.nan], 5))

    def begin() -> None:
        for i in range(10):
            store.remeasure(f"objective {i}")

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for done in [*(threads.submit(record, i) for i in range(3)), threads.submit(begin)]:
            done.result()
    assert store.check() == []


# -- commands --------------------------------------------------------------------------------------


def said(result: Result) -> str:
    """What a command printed, without the frame of an error."""
    return " ".join((result.out + result.err).replace("│", " ").split())


@pytest.mark.slow
def test_the_command_remeasure_asks_and_keeps_earlier_rewards(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.record(["a", "b", "c"], [1.0, 2.0, 3.0])
    assert "give --yes to begin another objective" in said(run("remeasure", "two", url=store_url))
    monkeypatch.setattr(buffers_command, "_is_terminal", lambda: True)
    asked = CliRunner().invoke(app, ["remeasure", "two", "--url", store_url], input="n\n")
    assert "Begin objective 'two' in default, where 3 samples are measured? [y/N]" in asked.output
    words = ("remeasure", "two", "--where", "reward > 1", "--yes")
    assert run(*words, url=store_url).out == "2 samples wait again\n"
    assert run(*words, url=store_url).out == "0 samples wait again\n"
    refusal = said(run("remeasure", "reward", "--yes", url=store_url))
    assert "has measurements of the objective 'reward' already" in refusal
    assert json.loads(run("top", "--json", url=store_url).out) == []
    earlier = json.loads(run("top", "--objective", "reward", "--json", url=store_url).out)
    assert [row["reward"] for row in earlier] == [3.0, 2.0, 1.0]
    assert "has never had the objective 'three'" in said(
        run("top", "--objective", "three", url=store_url)
    )
    assert "give --objective or --by score" in said(
        run("top", "--objective", "reward", "--by", "score", url=store_url)
    )
    with open_store(store_url) as store:
        assert (store.objective, len(store), store.check()) == ("two", 2, [])


@pytest.mark.parametrize("command", ["failed", "retry", "top"])
def test_a_condition_that_is_no_sql_is_told_in_the_words_of_the_database(
    store_url: str, command: str
) -> None:
    open_store(store_url).close()
    for where, reason in {
        "timed out (": "the database says",
        "reason = 'crashed'": "there is no column 'reason', use error; columns are sample_id",
    }.items():
        result = run(command, "--where", where, url=store_url)
        assert (result.code, reason in said(result)) == (2, True), result
        assert "Unavailable" not in result.err


@pytest.mark.slow
def test_commands_count_one_thing_as_one(store_url: str) -> None:
    with open_store(store_url, weighting="uniform", budget=1) as store:
        store.record(["a"], [math.nan])
    assert "a budget of 1 sample; 1 is measured" in run("budget", url=store_url).out
    assert run("export", "-", "--format", "csv", url=store_url).err == "1 sample was exported\n"
    assert run("retry", "--all", url=store_url).out == "1 sample waits again\n"
    assert run("retry", "--all", url=store_url).out == "0 samples wait again\n"


@pytest.mark.slow
def test_the_command_retry_names_a_sample_that_has_not_failed(store_url: str) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add(TEN)
        batch = store.sample(2)
        bad = batch.ids.tolist()
        batch.fail(bad, "crashed")
        waiting = int(hold(store.sample(1)).ids[0])
    for number in (waiting, 10**12):
        refusal = said(run("retry", str(bad[0]), str(number), url=store_url))
        assert f"sample {number} of buffer 'default' has not failed" in refusal
    with open_store(store_url) as store:
        assert len(store.failed()) == 2
    assert run("retry", *map(str, bad), url=store_url).out == "2 samples wait again\n"
