"""Buffers are renamed and deleted, samples forgotten: nothing is left, and counters stay true."""

import contextlib
import inspect
import logging
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.commands import refused, run
from sqlbuffer import plots
from sqlbuffer.core.attempts import Ending
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.prioritised import PrioritisedBatch
from sqlbuffer.db import schema
from sqlbuffer.errors import BufferNotFound, InvalidArgument, StaleIds
from sqlbuffer.store import SampleStore, open_store

TABLES = {
    name: table
    for name, table in schema.metadata.tables.items()
    if name not in ("receipts", "lineage")  # of all buffers
}


def n_rows(store: SampleStore) -> dict[str, int]:
    counts = {
        name: sa.select(sa.func.count()).select_from(table).scalar_subquery()
        for name, table in TABLES.items()
    }
    (row,) = inside.rows(store, sa.select(*(count.label(name) for name, count in counts.items())))
    return dict(row._mapping)


def filled(url: str, name: str, mode: str = "consume") -> SampleStore:
    """A buffer with rows in every table, of which 30 samples wait and 4 are claimed."""
    store = open_store(url, name=name, mode=mode)
    store.add([f"{name}{i}" for i in range(40)], source="s", meta={"a": 1})
    store.record([f"{name} recorded"], [0.5])
    store.score(lambda samples: [len(sample) for sample in samples])
    batch = store.sample(6)
    batch.report(batch.ids[:2], [1.0, None], errors=[None, "broken"])
    batch.settle([3.0], ids=batch.ids[2:3], metrics={"loss": 1.0}, checkpoint={"x": b"1"})
    store.save_predictor(b"state", rows_trained=2)
    store.announce_job("retrain", "never")
    hold(store.sample(4))
    return store


# -- deletion --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_deleted_buffer_leaves_no_row_and_no_other_buffer_changes(
    store_url: str, mode: str
) -> None:
    with filled(store_url, "kept", mode) as kept:
        before, stats = n_rows(kept), kept.stats()
        ids = kept.waiting().ids[:3].tolist()
        store = filled(store_url, "gone", mode)
        assert all(n_rows(kept)[name] > before[name] for name in TABLES)
        store.delete()
        assert n_rows(kept) == before
        assert kept.stats() == stats
        assert kept.check() == []
        assert kept.remove(ids) == 3  # the newest sample of the database was deleted
        with pytest.raises(BufferNotFound, match=r"no buffer 'gone' in .*: it has 'kept'\.$"):
            open_store(store_url, name="gone", create=False)
        with open_store(store_url, name="gone") as again:
            assert (len(again), again.check()) == (0, [])


WRITES: dict[str, Callable[[SampleStore, Batch], object]] = {
    "add": lambda store, _: store.add(["new"]),
    "add_one": lambda store, _: store.add_one("new"),
    "add again": lambda store, _: store.add(["gone1"], requeue=True),
    "record": lambda store, _: store.record(["new", "gone1"], [1.0, 2.0]),
    "remove": lambda store, _: store.remove([1, 2, 3]),
    "replace": lambda store, _: store.replace([1], ["new"]),
    "forget": lambda store, _: store.forget([1]),
    "score": lambda store, _: store.score(lambda samples: [1.0] * len(samples)),
    "refresh": lambda store, _: store.refresh(lambda samples: [1.0] * len(samples)),
    "refresh some": lambda store, _: store.refresh(lambda samples: [1.0] * len(samples), budget=2),
    "mark_stale": lambda store, _: store.mark_stale(),
    "update_priorities": lambda store, _: store.update_priorities([1], [1.0]),
    "sample": lambda store, _: store.sample(2),
    "sample heaviest": lambda store, _: store.sample(2, pct_argmax=1.0),
    "sample leased": lambda store, _: store.sample(2, lease_s=60),
    "stream": lambda store, _: list(store.stream(2)),
    "measure": lambda store, _: store.measure(lambda sample: 1.0, max_calls=1, silent=True),
    "remeasure": lambda store, _: store.remeasure("other"),
    "set_budget": lambda store, _: store.set_budget(100),
    "retry": lambda store, _: store.retry([1]),
    "save_predictor": lambda store, _: store.save_predictor(b"new", rows_trained=1),
    "announce_job": lambda store, _: store.announce_job("other", "never"),
    "leased": lambda store, _: store.leased("retrain").__enter__(),
    "log_metrics": lambda store, _: store.log_metrics(3, {"loss": 1.0}),
    "save_checkpoints": lambda store, _: store.save_checkpoints({"x": b"2"}, iteration=3),
    "rename": lambda store, _: store.rename("other"),
    "delete": lambda store, _: store.delete(force=True),
    "copy": lambda store, _: store.copy("copied"),
    "prune": lambda store, _: store.prune(keep_draws=0),
    "batch.settle": lambda _, batch: batch.settle([1.0] * len(batch)),
    "batch.settle nothing": lambda _, batch: batch.settle(),
    "batch.settle more": lambda _, batch: batch.settle(
        [1.0], ids=batch.ids[:1], record=(["new"], [1.0], ""), metrics={"loss": 1.0}
    ),
    "batch.report": lambda _, batch: batch.report(batch.ids[:1], [1.0]),
    "batch.report, claimed": lambda _, batch: batch.report(batch.ids[:1], [1.0], settle=False),
    "batch.fail": lambda _, batch: batch.fail(batch.ids[:1], "broken"),
    "batch._start": lambda _, batch: batch._start(batch.ids[:1].tolist()),
    "batch._ended": lambda _, batch: batch._ended(int(batch.ids[0]), Ending(), settle=True),
    "batch.update_priorities": lambda _, batch: batch.update_priorities([1.0] * len(batch)),
    "batch.detach": lambda _, batch: batch.detach(),
    "batch.release": lambda _, batch: batch.release(),
    "batch as a block": lambda _, batch: batch.__exit__(None, None, None),
}


def test_the_list_of_writing_methods_is_complete() -> None:
    named = {name.partition(" ")[0].rstrip(",") for name in WRITES}
    marked = {name for name, method in vars(SampleStore).items() if hasattr(method, "__wrapped__")}
    assert marked - {"batch"} == {name for name in named if "." not in name} - {"batch"}
    methods = {**vars(PrioritisedBatch), **vars(Batch)}
    public = {name for name in methods if not name.startswith("_")}
    other = {"importance_weights"} | {
        name for name, value in methods.items() if not inspect.isfunction(value)
    }
    of_batch = {name.removeprefix("batch.") for name in named if name.startswith("batch.")}
    assert public - other == {name for name in of_batch if not name.startswith("_")}


SEVERAL = 6
"""Methods that are called while one buffer is kept, which takes as long to fill."""


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(WRITES), SEVERAL))
def test_a_write_after_a_deletion_finds_no_buffer(store_url: str, first: int) -> None:
    with filled(store_url, "kept") as kept:
        for write in [*WRITES][first : first + SEVERAL]:
            check_write(kept, store_url, write)


def check_write(kept: SampleStore, store_url: str, write: str) -> None:
    before = n_rows(kept)
    store = filled(store_url, "gone")
    store.add(["unscored"])
    batch = hold(store.sample(3))
    store.mark_stale()
    with open_store(store_url, name="gone") as other:
        other.delete()
    assert n_rows(kept) == before, write
    with pytest.raises(
        BufferNotFound, match=r"buffer 'gone' is no longer .* it was deleted, or .*again\.$"
    ):
        WRITES[write](store, batch)
    assert n_rows(kept) == before, write
    # Another buffer with the same number.
    with open_store(store_url, name="new") as new:
        new.add(["unscored"])
        between = n_rows(kept)
        with contextlib.suppress(BufferNotFound):
            assert WRITES[write](store, batch) == 0, f"{write} found nothing to do"
        assert n_rows(kept) == between, write
        assert new.check() == [], write
        new.delete()
    store.close()


READS: dict[str, Callable[[SampleStore], object]] = {
    "len": len,
    "iteration": lambda store: store.iteration,
    "objective": lambda store: store.objective,
    "budget_left": lambda store: store.budget_left,
    "stats": lambda store: store.stats(),
    "check": lambda store: store.check(),
    "is_refreshed": lambda store: store.is_refreshed(),
    "staleness": lambda store: store.staleness(),
    "waiting": lambda store: store.waiting(),
    "labelled": lambda store: store.labelled(),
    "labelled_rows": lambda store: store.labelled_rows(),
    "dataset": lambda store: store.dataset(),
    "rewards_of": lambda store: store.rewards_of(["gone1"]),
    "samples_of": lambda store: store.samples_of([]),
    "incumbent": lambda store: store.incumbent(),
    "top": lambda store: store.top(),
    "top by score": lambda store: store.top(by="score", where="source = 's'"),
    "table": lambda store: list(store.table()),
    "table where": lambda store: list(store.table(where="source = 's'")),
    "to_pandas": lambda store: store.to_pandas(),
    "to_arrow": lambda store: store.to_arrow(),
    "failed": lambda store: store.failed(),
    "predictors": lambda store: store.predictors(),
    "newest_predictor": lambda store: store.newest_predictor(),
    "newest_version": lambda store: store.newest_version(),
    "predictor_state": lambda store: store.predictor_state(),
    "load_predictor": lambda store: store.load_predictor(object()),
    "jobs": lambda store: store.jobs(),
    "history": lambda store: store.history(),
    "checkpoint": lambda store: store.checkpoint("x"),
    "checkpoints": lambda store: store.checkpoints("x"),
    **{
        f"plots.{kind}": lambda store, kind=kind: getattr(plots, kind)(store)
        for kind in plots.__all__
    },
}


def test_the_list_of_reading_methods_is_complete() -> None:
    public = {name for name in vars(SampleStore) if not name.startswith("_")}
    named = {name.partition(" ")[0].partition(".")[0] for name in (*WRITES, *READS)}
    of_no_rows = {"close", "connect", "name", "url", "direction", "key"}
    assert public - named == of_no_rows


def test_a_read_after_a_deletion_finds_no_buffer(store_url: str) -> None:
    store = filled(store_url, "gone")
    rows = store.labelled_rows()
    store.delete()

    def refuse(read: Callable[[SampleStore], object]) -> bool:
        with contextlib.suppress(BufferNotFound):
            read(store)
            return False
        return True

    assert [name for name, read in READS.items() if not refuse(read)] == []
    with pytest.raises(BufferNotFound, match=r"buffer 'gone' is no longer .*open the store again"):
        rows.take([0])
    with filled(store_url, "new") as new:  # SQLite gives it the number again
        inside.set_buffer_id(store, inside.buffer_id(new))
        assert [name for name, read in READS.items() if not refuse(read)] == []
    store.close()


@pytest.mark.slow
def test_ending_a_lease_of_a_deleted_buffer_finds_no_buffer(store_url: str) -> None:
    store = filled(store_url, "gone")
    block = store.leased("retrain")
    lease = block.__enter__()
    with open_store(store_url, name="gone") as other:
        other.delete()
    with pytest.raises(BufferNotFound):
        store.save_predictor(b"new", rows_trained=1, lease=lease)
    with pytest.raises(BufferNotFound):
        block.__exit__(None, None, None)
    store.close()


WAITING = """
import sys
from sqlbuffer import open_store
from sqlbuffer.errors import BufferNotFound
store = open_store(sys.argv[1], name="used")
store.add(["another"])
print("ready", flush=True)
sys.stdin.readline()
try:
    store.add(["too late"])
except BufferNotFound as exc:
    print(type(exc).__name__)
"""


@pytest.mark.slow
def test_a_buffer_that_another_process_uses_is_deleted_by_force_only(store_url: str) -> None:
    store = filled(store_url, "used")
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, store_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(
            InvalidArgument,
            match=rf"^buffer 'used' is not deleted, because another worker uses it \(.*-{other.pid}"
            r"-.*\): end the process, or give force=True \(`sqlbuffer rm --force`\)\.$",
        ):
            store.delete()
        assert store.check() == []
        assert "another worker uses it" in refused(run("rm", "used", "--yes", url=store_url))
        store.delete(force=True)
        assert other.communicate("\n")[0] == "BufferNotFound\n"


def test_a_leased_claim_keeps_a_buffer(store_url: str) -> None:
    with open_store(store_url, name="lab", weighting="uniform") as store:
        store.add(["a", "b"])
        token = store.sample(1, lease_s=3_600).detach()
        with pytest.raises(InvalidArgument, match=r"is not deleted, because batch \d+ is claimed"):
            store.delete()
        store.batch(token).release()
        store.delete()


# -- renaming --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_renamed_buffer_goes_on_under_its_new_name(store_url: str) -> None:
    with filled(store_url, "old") as store, open_store(store_url, name="old") as other:
        before = store.stats()
        store.rename("new")
        assert store.name == store.stats().name == "new"
        assert other.add(["more"]).added == 1
        with open_store(store_url, name="new", create=False) as again:
            assert again.stats().stored == before.stored + 1
        with pytest.raises(BufferNotFound, match="no buffer 'old'"):
            open_store(store_url, name="old", create=False)
        store.rename("new")
        assert store.check() == []


@pytest.mark.parametrize(
    ("wrong", "why"), [("taken", "already has a buffer 'taken'"), ("", "needs a name"), (3, "name")]
)
def test_a_name_that_cannot_be_taken_is_refused(store_url: str, wrong: Any, why: str) -> None:
    open_store(store_url, name="taken").close()
    with open_store(store_url, name="old") as store:
        with pytest.raises(InvalidArgument, match=why):
            store.rename(wrong)
        assert store.name == store.stats().name == "old"


# -- forgetting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_forgotten_sample_leaves_nothing(store_url: str, mode: str) -> None:
    with filled(store_url, "run", mode) as store:
        waiting = store.waiting()
        settled = inside.scalars(
            store,
            sa.select(schema.draws.c.sample_id)
            .join(schema.batches, schema.batches.c.id == schema.draws.c.batch_id)
            .where(schema.batches.c.settled_at.is_not(None)),
        )
        held = inside.scalars(
            store,
            sa.select(schema.draws.c.sample_id)
            .join(schema.batches, schema.batches.c.id == schema.draws.c.batch_id)
            .where(schema.batches.c.settled_at.is_(None)),
        )
        gone = {*settled, *waiting.ids[-3:].tolist()} - set(held)
        before = store.stats()
        result = store.forget([*gone, *gone, 10**6])
        assert result.forgotten == len(gone)
        assert result.predictors == (1,)
        assert store.check() == []
        after = store.stats()
        assert after.stored == before.stored - len(gone)
        assert after.iteration == before.iteration
        for table, column in (
            (schema.samples, schema.samples.c.id),
            (schema.pool, schema.pool.c.sample_id),
            (schema.draws, schema.draws.c.sample_id),
            (schema.measurements, schema.measurements.c.sample_id),
        ):
            n = sa.select(sa.func.count()).select_from(table).where(column.in_(gone))
            if table is schema.samples:
                n = n.where(table.c.buffer_id == inside.buffer_id(store))
            assert inside.scalar(store, n) == 0
        again = store.add([waiting.samples[-1]])
        assert (again.added, again.requeued) == (1, 0)
        assert max(store.waiting().ids.tolist()) not in gone
        assert store.check() == []


def test_a_claimed_sample_is_not_forgotten(store_url: str) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add(["a", "b", "c"])
        batch = hold(store.sample(2))
        batch.report(batch.ids[:1], [1.0])
        before = store.stats()
        for number in batch.ids.tolist():
            with pytest.raises(
                InvalidArgument,
                match=rf"^sample {number} cannot be forgotten, because worker .* has claimed it in "
                rf"batch {batch.id}: settle or release the batch first\.$",
            ):
                store.forget([*store.waiting().ids.tolist(), number])
        assert store.stats() == before
        batch.settle()
        assert store.forget(batch.ids.tolist()).forgotten == 2
        assert store.check() == []


def test_only_predictors_since_the_first_reward_are_named(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add(["a", "b"])
        for i, sample in enumerate(["a", "b", "a"]):
            store.record([sample], [float(i)])
            store.save_predictor(b"state", rows_trained=1)
        ids = dict(zip(store.waiting().samples, store.waiting().ids.tolist(), strict=True))
        with caplog.at_level(logging.WARNING, "sqlbuffer.core.deletion"):
            assert store.forget([ids["b"]]).predictors == (2, 3)
            assert "predictor versions 2, 3 were trained" in caplog.text
            assert store.forget([ids["a"]]).predictors == (1, 2, 3)
            store.add(["c"])
            assert store.forget(store.waiting().ids.tolist()).predictors == ()


def test_ids_that_were_read_before_still_count_after_others_were_forgotten(store_url: str) -> None:
    with open_store(store_url, weighting="uniform") as store, open_store(store_url) as other:
        store.add(["a", "b", "c"])
        ids = store.waiting().ids.tolist()
        assert other.forget([ids[2]]).forgotten == 1  # the newest that `store` has seen
        assert store.remove(ids) == 2
        other.add(["d", "e"])
        assert ids[2] not in store.waiting().ids.tolist()  # its number is not given again
        assert store.remove(ids) == 0
        assert store.forget(ids).forgotten == 2
        assert store.check() == []


def test_a_database_that_went_back_is_noticed_after_a_deletion(sqlite_url: str) -> None:
    with open_store(sqlite_url, weighting="uniform") as store:
        store.add(["a", "b", "c"])
        store.forget(store.waiting().ids[2:].tolist())
        store.add(["d"])
        ids = store.waiting().ids.tolist()
        inside.execute(store, sa.delete(schema.pool).where(schema.pool.c.sample_id == ids[-1]))
        inside.execute(store, sa.delete(schema.samples).where(schema.samples.c.id == ids[-1]))
        with pytest.raises(StaleIds):
            store.forget(ids)


@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("seed", range(5))
def test_counters_stay_true_whatever_is_forgotten(store_url: str, mode: str, seed: int) -> None:
    """Random programs, of which parts are forgotten, in the end everything."""
    rng = random.Random(seed)
    names = [f"s{i}" for i in range(40)]
    weighting = rng.choice(["uniform", "shift"])
    limit = rng.choice([None, 12])
    with open_store(store_url, mode=mode, seed=seed, weighting=weighting, max_size=limit) as store:

        def draw() -> Batch:
            return store.sample(rng.randint(1, 6), pct_argmax=rng.choice([0.0, 0.5]))

        def settle() -> None:
            batch = draw()
            some = rng.sample(batch.ids.tolist(), len(batch) // 2)
            batch.settle([rng.choice([1.0, None]) for _ in some], ids=some)

        def report() -> None:
            batch = draw()
            batch.report(batch.ids[: len(batch) // 2], [1.0] * (len(batch) // 2))
            if len(batch):
                batch.release()

        def forget() -> None:
            n_before = store.stats().stored
            everything = inside.scalars(
                store,
                sa.select(schema.samples.c.id).where(
                    schema.samples.c.buffer_id == inside.buffer_id(store)
                ),
            )
            some = rng.sample(list(everything), min(4, len(everything)))
            assert store.forget(some).forgotten == len(some)
            assert store.stats().stored == n_before - len(some)

        acts: list[Callable[[], object]] = [
            lambda: store.add(rng.sample(names, 8)),
            lambda: store.add(rng.sample(names, 8), requeue=True),
            lambda: store.record(rng.sample(names, 3), [1.0, None, 2.0]),
            lambda: store.remove(rng.sample(store.waiting().ids.tolist(), len(store) // 4)),
            lambda: store.score(lambda samples: [rng.random() for _ in samples]),
            lambda: store.retry(),
            lambda: draw().release() if len(store) else None,
            settle,
            report,
            forget,
        ]
        for _ in range(40):
            rng.choice(acts)()
        assert store.check() == []
        stats = store.stats()
        ids = inside.scalars(
            store,
            sa.select(schema.samples.c.id).where(
                schema.samples.c.buffer_id == inside.buffer_id(store)
            ),
        )
        assert stats.stored == len(ids)
        store.forget(ids)
        assert store.check() == []
        stats = store.stats()
        names_of_counts = (
            *("stored", "waiting", "unscored", "unscorable", "claimed", "drawn"),
            *("requeued", "removed", "measured", "failed"),
        )
        assert {name: getattr(stats, name) for name in names_of_counts} == dict.fromkeys(
            names_of_counts, 0
        )


# -- commands --------------------------------------------------------------------------------------


def test_commands_rename_and_delete(store_url: str) -> None:
    filled(store_url, "old").close()
    assert run("rename", "old", "new", url=store_url).out == "old was renamed to new\n"
    assert "no buffer 'old'" in refused(run("rename", "old", "x", url=store_url))
    declined = run("rm", "new", url=store_url)
    assert declined.code == 2
    assert "give --yes" in " ".join(declined.err.replace("│", " ").split())
    assert run("rm", "new", "--yes", url=store_url).out == "new was deleted\n"
    assert "no buffer 'new'" in refused(run("rm", "new", "--yes", url=store_url))


@pytest.mark.parametrize(("answer", "is_deleted"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_rm_asks_on_a_terminal(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, answer: str, is_deleted: bool
) -> None:
    from typer.testing import CliRunner

    from sqlbuffer.cli import buffers
    from sqlbuffer.cli.main import app

    filled(sqlite_url, "run").close()
    monkeypatch.setattr(buffers, "_is_terminal", lambda: True)
    outcome = CliRunner().invoke(app, ["rm", "run", "--url", sqlite_url], input=answer)
    assert "Delete run with 41 samples, of which 3 are measured? [y/N]" in outcome.output
    assert (outcome.exit_code == 0) is is_deleted
    with open_store(sqlite_url, name="other") as store:
        assert ("run" in inside.scalars(store, sa.select(schema.buffers.c.name))) is not is_deleted
