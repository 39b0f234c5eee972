"""A number is not a sample: where the database goes back to an earlier state, others get the
numbers of what was lost.

So it is after a failover to a standby that lagged, and after a restore, under processes that live
on. Here the state is set back by hand; `test_failover.py` does it with servers.
"""

import contextlib
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from helpers import inside
from helpers.restored import save
from helpers.samples import scores_of
from helpers.servers import server_execute
from sqlbuffer.errors import BufferNotFound, ClaimLost, LeaseLost, StaleIds
from sqlbuffer.predictor.weights import dump_state
from sqlbuffer.retraining.train import split
from sqlbuffer.retraining.worker import load_newer
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training.pool_list import WaitingList

OpenStore = Callable[..., SampleStore]


def names(first: int, last: int) -> list[str]:
    return [f"s{i}" for i in range(first, last)]


def fill(store: SampleStore, samples: list[str]) -> None:
    store.add(samples)
    store.score(scores_of)


def rewards(samples: list[str]) -> list[float]:
    """A reward that tells for which sample it was measured."""
    return [float(sample[1:]) for sample in samples]


def assert_rewards_are_right(store: SampleStore, *, measured: list[str]) -> None:
    stored, values = store.labelled()
    assert dict(zip(stored, values.tolist(), strict=True)) == dict(
        zip(measured, rewards(measured), strict=True)
    )
    assert store.check() == []


@pytest.fixture(params=["consume", "replay"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def others(store_url: str, mode: str) -> Iterator[SampleStore]:
    """A second store, which works on where the first one has lost its state."""
    with open_store(store_url, mode=mode) as store:
        yield store


@pytest.mark.parametrize("is_drawn", [False, True], ids=["waits", "is drawn by others"])
@pytest.mark.parametrize("kept", [0, 5], ids=["none", "some"])
@pytest.mark.parametrize("by", ["settle", "report", "release"])
def test_a_batch_that_was_lost_touches_no_sample_of_others(
    new_store: OpenStore,
    others: SampleStore,
    store_url: str,
    mode: str,
    by: str,
    kept: int,
    is_drawn: bool,
) -> None:
    """Whatever of its samples the earlier state has, and whatever others have made of their numbers
    since.
    """
    store = new_store(mode=mode)
    fill(store, names(0, kept))
    go_back = save(store_url)
    fill(store, names(kept, 20))
    batch = store.sample(-1)
    go_back()
    fill(others, names(100, 130))
    theirs = others.sample(10) if is_drawn else None
    assert theirs is None or theirs.id == batch.id, "their batch has the same number"
    before, ours = others.stats(), set(batch.samples) & set(others.waiting().samples)
    with pytest.raises(ClaimLost, match="returned to an earlier state"):
        {
            "settle": lambda: batch.settle(rewards(batch.samples)),
            "report": lambda: batch.report(batch.ids, rewards(batch.samples)),
            "release": lambda: batch.release(),
        }[by]()
    measured = [] if by == "release" else batch.samples
    assert_rewards_are_right(others, measured=measured)
    after = others.stats()
    stop_waiting = ours if mode == "consume" and by != "release" else set()
    assert len(ours) == kept
    assert after.waiting == before.waiting - len(stop_waiting)
    assert (after.claimed, after.iteration) == (before.claimed, 0)
    if theirs is not None:
        theirs.settle(rewards(theirs.samples))
        assert_rewards_are_right(others, measured=[*measured, *theirs.samples])
        assert others.iteration == 1


def test_the_parts_of_a_batch_are_stored_before_and_after(
    store: SampleStore, store_url: str
) -> None:
    go_back = save(store_url)
    fill(store, names(0, 10))
    batch = store.sample(4)
    assert batch.report(batch.ids[:2], rewards(batch.samples[:2])) == 2
    go_back()
    fill(store, names(20, 50))
    with pytest.raises(ClaimLost, match="returned"):
        batch.report(batch.ids[2:3], rewards(batch.samples[2:3]))
    with pytest.raises(ClaimLost, match="returned"):
        batch.settle([math.nan, *rewards(batch.samples[3:])], ids=batch.ids[2:])
    assert store.rewards_of(batch.samples)[:2] == [None, None], (
        "lost with the state, and not given again"
    )
    assert store.rewards_of(batch.samples)[2:] == rewards(batch.samples[2:]), (
        "a failure takes no reward's place"
    )
    assert store.stats().measured == 2
    assert store.check() == []


def test_what_is_stored_again_is_what_it_was(store: SampleStore, store_url: str) -> None:
    """Also a sample that is no text, and its source."""
    go_back = save(store_url)
    things: list[Any] = [("a", 1), {"b": 2.5}, np.arange(3)]
    store.add(things, source=["one", "two", "three"])
    store.score(lambda samples: np.ones(len(samples)))
    batch = store.sample(3)
    go_back()
    with pytest.raises(ClaimLost):
        batch.settle([1.0, 2.0, 3.0], record=(["r"], [4.0], "four"))
    found = {row["reward"]: (row["sample"], row["source"]) for row in store.top(4)}
    assert found[4.0] == ("r", "four")
    for reward, sample, source in zip([1.0, 2.0, 3.0], batch.samples, batch.sources, strict=True):
        np.testing.assert_equal(found[reward], (sample, source))
    assert (len(store), store.stats().stored, store.iteration) == (0, 4, 0)
    assert store.add(things, requeue=True).requeued == 3
    assert store.check() == []


def test_a_batch_of_the_same_number_drawn_by_the_same_process_is_another_one(
    store: SampleStore, store_url: str
) -> None:
    fill(store, names(0, 10))
    go_back = save(store_url)
    lost = store.sample(4)
    go_back()
    batch = store.sample(4)
    assert (batch.id, batch.samples) == (lost.id, lost.samples)
    with pytest.raises(ClaimLost, match="returned"):
        lost.release()
    assert store.stats().claimed == 4
    batch.settle(rewards(batch.samples))
    assert_rewards_are_right(store, measured=batch.samples)


# -- scores ----------------------------------------------------------------------------------------


def once(act: Callable[[], object]) -> Callable[[list[str]], np.ndarray]:
    """A score function during whose first call something happens."""
    left = [act]

    def score(samples: list[str]) -> np.ndarray:
        while left:
            left.pop()()
        return scores_of(samples)

    return score


@pytest.mark.parametrize("kept", [0, 5], ids=["none", "some"])
@pytest.mark.parametrize("how", ["missing", "all", "stale", "budget"])
def test_a_score_is_never_that_of_another_sample(
    new_store: OpenStore, store_url: str, how: str, kept: int
) -> None:
    store = new_store()
    store.add(names(0, kept))
    if how != "missing":
        store.score(scores_of)
    go_back = save(store_url)
    store.add(names(kept, 40))
    if how != "missing":
        store.score(scores_of)

    def fail_over() -> None:
        go_back()
        store.add(names(100, 150))
        if how != "missing":
            store.score(scores_of)

    options: dict[str, Any] = {"only": "all", "budget": 30} if how == "budget" else {"only": how}
    if how == "stale":
        store.save_predictor(b"", rows_trained=1)
    store.score(once(fail_over), **options, chunk=20)
    store.score(scores_of)
    for row in store.top(100, by="score"):
        assert row["score"] == float(row["sample"][1:])
    assert len(store.top(100, by="score")) == len(store) == kept + 50
    assert store.is_refreshed() or how == "budget"
    assert store.check() == []


# -- numbers that users keep -----------------------------------------------------------------------


@pytest.fixture
def stale(store: SampleStore, store_url: str) -> tuple[SampleStore, list[int]]:
    """A store, and numbers which it gave for samples that were lost."""
    fill(store, names(0, 10))
    go_back = save(store_url)
    fill(store, names(10, 20))
    numbers = store.waiting().ids[10:].tolist()
    go_back()
    fill(store, names(100, 150))
    return store, numbers


@pytest.mark.parametrize(
    "use",
    [
        lambda store, ids: store.remove(ids),
        lambda store, ids: store.replace(ids, [f"other {i}" for i in ids]),
        lambda store, ids: store.samples_of(ids),
    ],
    ids=["remove", "replace", "samples_of"],
)
def test_numbers_of_what_was_lost_are_refused(
    stale: tuple[SampleStore, list[int]],
    store_url: str,
    use: Callable[[SampleStore, list[int]], object],
) -> None:
    store, numbers = stale
    for _ in range(2):
        with pytest.raises(StaleIds, match="open the store again"):
            use(store, numbers)
        assert (len(store), store.check()) == (60, [])
        store.waiting()  # does not make them good
    with open_store(store_url) as again:
        use(again, again.waiting().ids[:10].tolist())
        assert again.check() == []


def test_numbers_that_a_draw_gave_are_refused_too(new_store: OpenStore, store_url: str) -> None:
    """Where all that the store has seen of the samples is a batch."""
    store = new_store(mode="replay")
    go_back = save(store_url)
    fill(store, names(0, 10))
    batch = store.sample(5)
    go_back()
    fill(store, names(100, 150))
    with pytest.raises(StaleIds):
        store.remove(batch.ids)  # type: ignore[arg-type]
    assert len(store) == 50


def test_numbers_stay_good_while_nothing_is_lost(store: SampleStore, store_url: str) -> None:
    """Also those that came by other ways than through this store."""
    fill(store, names(0, 10))
    numbers = store.waiting().ids.tolist()
    save(store_url)()
    with open_store(store_url) as other:
        fill(other, names(10, 20))
        theirs = other.waiting().ids.tolist()
    assert sorted(store.samples_of(theirs).values()) == sorted(names(0, 20))
    assert store.remove(numbers[:2]) == 2
    batch = store.sample(3)
    assert store.remove(theirs) == 15
    batch.settle()
    assert store.remove(theirs) == 0
    assert store.check() == []


def test_numbers_of_other_ways_need_the_database_that_was_opened(
    store: SampleStore, store_url: str
) -> None:
    """What this store has seen is proven by its rows, whatever the server; what it has not is taken
    at its word.
    """
    fill(store, names(0, 10))
    numbers = store.waiting().ids.tolist()
    with open_store(store_url) as other:
        fill(other, names(10, 20))
        theirs = other.waiting().ids.tolist()
    inside.handle_of(
        store
    ).lineage._opened = "the timeline before a promotion"  # test_failover.py promotes a server
    with pytest.raises(StaleIds):
        store.remove(theirs)
    assert len(store.samples_of(numbers)) == 10
    assert store.remove(theirs) == 20, (
        "they have been read since: it is the database that the store knows"
    )


def test_lineages_of_two_databases_differ(
    new_store: OpenStore, store_url: str, tmp_path: pathlib.Path
) -> None:
    store = new_store()
    database = inside.database_of(store)
    lineage = [database.read(database.dialect.lineage) for _ in range(2)]
    assert lineage[0] == lineage[1]
    if store_url.startswith("sqlite"):
        with open_store(f"sqlite:///{tmp_path / 'other.db'}") as other:
            assert inside.database_of(other).read(database.dialect.lineage) != lineage[0]
        return
    system, timeline, *numbers = lineage[0].split("/")
    assert int(system)
    assert int(timeline, 16) == 1
    assert all(map(int, numbers))


def test_a_role_that_may_ask_for_nothing_has_a_lineage(postgresql_url: str) -> None:
    """A server may deny its identifier."""
    denied = "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"
    with open_store(postgresql_url) as store:
        dialect = inside.backend_of(store)
        role = f"asker_{os.getpid()}"
        for statement in (
            denied,
            f"CREATE ROLE {role} LOGIN",
            *dialect.grants(sa.make_url(postgresql_url), reader=role, worker=role),
        ):
            server_execute(postgresql_url, statement)
        with open_store(sa.make_url(postgresql_url).set(username=role)) as restricted:
            lineage = inside.database_of(restricted).read(dialect.lineage)
            assert lineage.startswith("/00000001/")
            fill(restricted, names(0, 5))
            assert restricted.remove(restricted.waiting().ids.tolist()) == 5
        server_execute(postgresql_url, f"DROP OWNED BY {role}")
        server_execute(postgresql_url, f"DROP ROLE {role}")


def test_labelled_rows_prove_themselves(
    stale: tuple[SampleStore, list[int]], store_url: str
) -> None:
    store, _ = stale
    store.record(names(0, 5), np.arange(5.0))
    go_back = save(store_url)
    store.record(names(200, 205), np.arange(5.0))
    rows = store.labelled_rows()
    assert sorted(rows) == sorted([*names(0, 5), *names(200, 205)])
    train, _ = split(rows, 0.0)
    train.places = train.places / 2
    assert list(train) == list(rows), "whatever is made of the places"
    assert list(train.subset(train.rewards < 3)) == [
        sample for sample, y in zip(rows, rows.rewards, strict=True) if y < 3
    ]
    go_back()
    with pytest.raises(StaleIds, match="labelled_rows again"):
        list(rows)
    store.record(names(300, 310), np.arange(10.0))
    with pytest.raises(StaleIds):
        rows[5]
    assert sorted(rows[:5]) == names(0, 5), "these are still there"
    assert sorted(store.labelled_rows()) == sorted([*names(0, 5), *names(300, 310)])


def test_the_list_of_what_waits_passes_over_what_was_lost(
    store: SampleStore, store_url: str
) -> None:
    """The loop's list goes by hashes: what is not there any more has left, as if it had
    been drawn.
    """
    fill(store, names(0, 5))
    go_back = save(store_url)
    fill(store, names(5, 10))
    listed = WaitingList(store, lambda one, other: bool(one == other))
    other = {"s0": None, "s1": "s1000", "s7": "s1001", "s8": None, "s9": None}
    assert sorted(listed.items()) == names(0, 10)
    listed.assign([other.get(sample, sample) for sample in listed.items()])
    go_back()
    fill(store, names(100, 110))
    listed.flush()
    assert sorted(store.waiting().samples) == sorted(["s1000", *names(2, 5), *names(100, 110)])
    assert store.check() == []


# -- the buffer, predictors and leases -------------------------------------------------------------


def test_a_buffer_that_was_lost_is_not_taken_for_another_one(store_url: str) -> None:
    with open_store(store_url, name="first"):
        pass
    go_back = save(store_url)
    with open_store(store_url, name="lost") as store:
        fill(store, names(0, 10))
        batch = store.sample(5)
        go_back()
        with open_store(store_url, name="another") as another:
            assert inside.buffer_id(another) == inside.buffer_id(store)
            for use in (
                lambda: store.add(["s1"]),
                lambda: store.record(["s1"], [1.0]),
                lambda: store.sample(1),
                lambda: store.score(scores_of, only="all"),
                lambda: batch.settle(rewards(batch.samples)),
                lambda: batch.report(batch.ids, rewards(batch.samples)),
                lambda: batch.release(),
                lambda: store.save_predictor(b"", rows_trained=0),
                lambda: store.save_checkpoints({"a": b""}, iteration=0),
                lambda: store.log_metrics(0, {"a": 1.0}),
                lambda: store.leased("tidy").__enter__(),
            ):
                with pytest.raises(
                    BufferNotFound, match="'lost' is no longer the buffer that this store opened"
                ):
                    use()
            assert another.to_pandas().empty
            assert (another.jobs(), another.history(), another.predictors(), another.check()) == (
                [],
                [],
                [],
                [],
            )


def test_a_predictor_of_the_same_number_is_loaded(store: SampleStore, store_url: str) -> None:
    go_back = save(store_url)
    agent = torch.nn.Linear(1, 1)
    store.save_predictor(dump_state(agent), rows_trained=1)
    held, version = load_newer(store, agent, None)
    assert held is not None
    assert load_newer(store, agent, held) == (held, version) == (held, held.version)
    go_back()
    assert load_newer(store, agent, held) == (held, 0), "there is none: it keeps what it has"
    another = torch.nn.Linear(1, 1)
    assert store.save_predictor(dump_state(another), rows_trained=1) == held.version
    held_then, _ = load_newer(store, agent, held)
    assert held_then != held
    assert torch.equal(agent.weight, another.weight)


def test_a_lease_of_the_same_run_is_another_one(store: SampleStore, store_url: str) -> None:
    go_back = save(store_url)
    with contextlib.suppress(LeaseLost), store.leased("tidy") as lost:
        go_back()
        with store.leased("tidy") as lease:
            assert lease == lost, "owner and run are the same"
            with pytest.raises(LeaseLost):
                store.save_predictor(b"", rows_trained=0, lease=lost)
            store.save_predictor(b"", rows_trained=0, lease=lease)
    assert len(store.predictors()) == 1


def test_a_row_that_another_thread_notes_is_no_return_to_an_earlier_state(
    store_url: str,
) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add(["a"])
        first = store.waiting().ids.tolist()
        lineage = inside.handle_of(store).lineage

        class Turn:
            """A connection behind whose first statement another thread has its turn."""

            def __init__(self, connection: sa.Connection) -> None:
                self._connection = connection

            def execute(self, *given: Any) -> Any:
                found = self._connection.execute(*given)
                lineage._newest = newer
                return found

        store.add(["b"])
        before = lineage._newest
        store.waiting()
        newer = lineage._newest
        assert newer != before
        lineage._newest = before
        assert inside.database_of(store).read(lambda connection: lineage._holds(Turn(connection)))  # type: ignore[arg-type]
        store.remove(first)
