"""A stream of claimed batches: each row is settled once, and not before the loop has had it."""

import collections
import contextlib
import gc
import io
import itertools
import multiprocessing
import os
import pickle
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from helpers import inside
from helpers.cleanup import wait_for_disposal
from sqlbuffer.core.release import release_open
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db.schema import batches, draws
from sqlbuffer.errors import BufferNotFound, ClaimLost, InvalidArgument, ReadOnlyStore
from sqlbuffer.loading import delivery
from sqlbuffer.store import SampleStore, open_store

NAMES = [f"s{i}" for i in range(60)]


def as_it_is(batch: list[str]) -> list[str]:
    return batch


@pytest.fixture
def uniform(new_store: Callable[..., SampleStore]) -> SampleStore:
    store = new_store(weighting="uniform")
    store.add(NAMES)
    return store


@pytest.fixture
def replaying(new_store: Callable[..., SampleStore]) -> SampleStore:
    store = new_store(weighting="uniform", mode="replay")
    store.add(NAMES)
    return store


def settled(store: SampleStore) -> collections.Counter[str]:
    """How often each sample was settled."""
    is_settled = sa.or_(draws.c.reported, batches.c.settled_at.is_not(None))
    query = (
        sa.select(draws.c.sample_id)
        .join(batches, draws.c.batch_id == batches.c.id)
        .where(is_settled)
    )
    ids = list(inside.scalars(store, query))
    names = store.samples_of(ids)
    return collections.Counter(names[number] for number in ids)


def assert_sound(store: SampleStore) -> None:
    wait_for_disposal()
    assert store.check() == []


@pytest.mark.slow
def test_every_sample_comes_and_is_settled_once(uniform: SampleStore) -> None:
    found = list(uniform.stream(8, commit_every=3))
    assert [len(batch) for batch in found] == [8, 8, 8, 8, 8, 8, 8, 4], "claims of 24"
    assert sorted(itertools.chain(*found)) == sorted(NAMES)
    assert settled(uniform) == collections.Counter(NAMES)
    stats = uniform.stats()
    assert (stats.waiting, stats.claimed, stats.iteration, stats.removed) == (0, 0, 3, 0)
    assert list(uniform.stream(8)) == [], "until something is added"
    uniform.add(["late"])
    assert list(uniform.stream(8)) == [["late"]]
    assert_sound(uniform)


@pytest.mark.slow
def test_a_batch_is_settled_once_the_loop_has_come_back(uniform: SampleStore) -> None:
    had: list[str] = []
    for i, batch in enumerate(uniform.stream(4, commit_every=2)):
        assert settled(uniform).total() == i // 2 * 8, "never one that the loop has not had"
        assert set(settled(uniform)) <= set(had)
        had += batch
        if i == 6:
            break


@pytest.mark.slow
def test_the_main_process_settles_by_asking_for_the_state(uniform: SampleStore) -> None:
    stream = uniform.stream(4, commit_every=None)
    had: list[str] = []
    for i, batch in enumerate(stream):
        had += batch
        if i in (2, 5):
            assert stream.state_dict()["batches"] == i + 1
            assert settled(uniform) == collections.Counter(had)
            assert uniform.stats().claimed == 60 - len(had), "the rest of the claim"
            assert uniform.check() == []
        if i == 7:
            break
    assert settled(uniform).total() == 24
    assert stream.commit() == 8
    assert (stream.commit(), uniform.stats().claimed, len(uniform)) == (0, 0, 28), "waits again"
    left = list(itertools.chain(*stream))
    assert sorted(had + left) == sorted(NAMES)
    stream.state_dict()
    assert settled(uniform) == collections.Counter(NAMES)
    assert_sound(uniform)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_dropped_stream_gives_back_what_was_not_settled(
    uniform: SampleStore, new_store: Callable[..., SampleStore], mode: str, caplog: Any
) -> None:
    store = uniform if mode == "consume" else uniform.copy("other", mode="replay")
    stream = store.stream(8, commit_every=2 if mode == "consume" else None)
    found = list(itertools.islice(stream, 3))
    if mode == "replay":
        stream.commit()
        found += itertools.islice(stream, 2)
    del stream
    wait_for_disposal()
    assert store.stats().claimed == 0
    if mode == "consume":
        assert sorted(itertools.chain(*found[:2], *store.stream(8))) == sorted(NAMES)
    else:
        assert next(iter(store.stream(8))) == found[3], "the same draw again"
    assert caplog.messages == []
    assert_sound(store)
    if store is not uniform:
        wait_for_disposal()
        store.close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("seed", range(2))
def test_whatever_a_script_does_no_row_is_lost_and_none_settled_twice(
    new_store: Callable[..., SampleStore], seed: int, mode: str
) -> None:
    """Random programs over two streams: each goes on, ends, is asked for its state, or dropped."""
    rng = random.Random(seed)
    store = new_store(weighting="uniform", mode=mode)
    store.add(NAMES)

    def new_stream() -> Any:
        return store.stream(rng.choice([1, 3, 7]), commit_every=rng.choice([None, 1, 2, 5]))

    streams = [new_stream(), new_stream()]
    loops = [iter(stream) for stream in streams]
    had: collections.Counter[str] = collections.Counter()
    for _ in range(40):
        i = rng.randrange(2)
        act = rng.choices(["next", "state", "again", "new", "load"], [8, 2, 1, 1, 1])[0]
        if act == "next":
            had.update(next(loops[i], []))
        elif act == "state":
            streams[i].state_dict()
        elif act == "load":
            streams[i].load_state_dict(streams[i].state_dict())
            loops[i] = iter(streams[i])
        else:
            if act == "new":
                streams[i] = new_stream()
            loops[i] = iter(streams[i])
        assert settled(store) <= had
    del loops
    for stream in streams:
        stream.state_dict()
    streams.clear()
    wait_for_disposal()
    if mode == "consume":
        had.update(itertools.chain(*store.stream(4)))
        assert settled(store) == collections.Counter(NAMES)
    assert settled(store) <= had
    assert store.stats().claimed == 0
    assert_sound(store)


@pytest.mark.slow
def test_a_stream_of_a_replay_buffer_does_not_end(replaying: SampleStore) -> None:
    with mock.patch.object(delivery, "AT_ONCE", 30):
        found = list(itertools.islice(replaying.stream(16, commit_every=2), 6))
    for claim in (found[:2], found[2:4], found[4:]):
        assert len(set(itertools.chain(*claim))) == 32, "no sample comes twice within one claim"
    wait_for_disposal()
    assert settled(replaying) == collections.Counter(itertools.chain(*found[:4]))
    assert len(replaying) == 60
    assert_sound(replaying)


@pytest.mark.slow
def test_a_claim_of_a_replay_buffer_has_1024_samples(replaying: SampleStore) -> None:
    replaying.add([f"more{i}" for i in range(1_000)])
    next(loop := iter(replaying.stream(1, commit_every=1)))
    assert replaying.stats().drawn == 1_024
    del loop


@pytest.mark.slow
def test_a_stream_waits_for_new_samples(
    uniform: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = iter(range(1, 4))
    monkeypatch.setattr(
        delivery.time, "sleep", lambda _: next(waits) == 3 and uniform.add(["new"]) and None
    )
    stream = uniform.stream(60, until_empty=False)
    assert [sorted(batch) for batch in itertools.islice(stream, 2)] == [sorted(NAMES), ["new"]]


@pytest.mark.slow
def test_a_stream_says_that_scores_are_missing(
    store: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.add(["a"])
    assert list(store.stream(1)) == []
    assert "1 sample of buffer 'default' waits without a score: call `score`" in caplog.text


REFUSED: dict[str, tuple[Callable[[SampleStore], object], str]] = {
    "no samples": (
        lambda store: store.stream(0),
        "batch_size must be a positive number of samples",
    ),
    "no batches": (
        lambda store: store.stream(1, commit_every=0),
        "commit_every must be a positive number of batches, or None",
    ),
    "no state": (
        lambda store: store.stream(1).load_state_dict({}),
        "state must be what `state_dict` of a stream has returned; got {}",
    ),
    "nothing to commit": (lambda store: store.stream(1).commit({"a": {}}), "state must be what"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSED)
def test_mistakes_are_told(uniform: SampleStore, what: str) -> None:
    act, message = REFUSED[what]
    with pytest.raises(InvalidArgument, match=message):
        act(uniform)
    assert uniform.stats().claimed == 0


@pytest.mark.slow
def test_workers_of_another_loader_are_refused(uniform: SampleStore) -> None:
    """In this process: torch stops a worker that has raised after five seconds."""
    loop = iter(DataLoader(uniform.stream(1), batch_size=None))
    assert len(next(loop)) == 1
    with (
        mock.patch("sqlbuffer.loading.stream.get_worker_info"),
        pytest.raises(InvalidArgument, match=r"take stream\.loader\(num_workers=\.\.\.\)"),
    ):
        next(iter(uniform.stream(1)))


@pytest.mark.slow
def test_a_store_that_only_reads_has_no_stream(uniform: SampleStore) -> None:
    with (
        open_store(inside.url_of(uniform), read_only=True) as reading,
        pytest.raises(ReadOnlyStore, match="stream writes, and buffer 'default'"),
    ):
        reading.stream(1)


@pytest.mark.slow
def test_a_second_iteration_ends_the_first(uniform: SampleStore) -> None:
    stream = uniform.stream(4)
    with pytest.raises(InvalidArgument, match=r"another iteration of this stream"):
        list(zip(stream, stream, strict=True))
    stream.commit()
    del stream
    assert_sound(uniform)
    assert uniform.stats().claimed == 0


@pytest.mark.slow
def test_a_state_belongs_to_its_buffer(uniform: SampleStore) -> None:
    state = uniform.stream(4).state_dict()
    with uniform.copy("other") as other:
        with pytest.raises(InvalidArgument, match=r"of buffer 'default', .* is of 'other'"):
            other.stream(4).load_state_dict(state)
        with pytest.raises(InvalidArgument, match="of buffer 'default'"):
            other.stream(4).commit({"_snapshot": {"worker_0": state}})
    uniform.rename("renamed")
    uniform.stream(4).load_state_dict(state)


WRONG_PARTS: list[dict[str, Any]] = [
    {"batches": "many"},
    {"batches": -1},
    {"claims": 3},
    {"claims": [[1, "worker"]]},
    {"claims": [[1, "worker", "noon", 8, 4]]},
    {"claims": [[1, "worker", "2026-01-01T00:00:00", 8, 4]]},
    {"claims": [["1", "worker", "2026-01-01T00:00:00+00:00", 8, 4]]},
    {"claims": [[1, "worker", "2026-01-01T00:00:00+00:00", 8, 9]]},
]


@pytest.mark.slow
def test_a_state_that_was_changed_by_hand_is_refused(uniform: SampleStore) -> None:
    stream = uniform.stream(4)
    state = stream.state_dict()
    cut = [{key: state[key] for key in state if key != left_out} for left_out in state]
    for wrong in [*cut, *(state | part for part in WRONG_PARTS)]:
        for use in (stream.load_state_dict, stream.commit):
            with pytest.raises(InvalidArgument, match="state must be what"):
                use(wrong)
    stream.load_state_dict(state)


@pytest.mark.slow
def test_a_stream_of_a_deleted_buffer_finds_no_buffer(
    uniform: SampleStore, new_store: Callable[..., SampleStore]
) -> None:
    stream = uniform.stream(4)
    loop = iter(stream)
    next(loop)
    new_store().delete(force=True)
    with pytest.raises(BufferNotFound):
        stream.commit()
    with pytest.raises(BufferNotFound):
        list(uniform.stream(4))


@pytest.mark.slow
def test_a_claim_that_was_released_by_hand_comes_again(
    uniform: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    stream = uniform.stream(60)
    first = next(loop := iter(stream))
    inside.handle_of(uniform).write(release_open, [worker_id()])
    assert stream.commit() == 0
    assert "buffer 'default' released the claims of 60 samples" in caplog.text
    assert list(loop) == [first], "the claim is drawn again"
    assert_sound(uniform)


@pytest.mark.slow
def test_a_copy_of_a_stream_has_claims_of_its_own(uniform: SampleStore) -> None:
    stream = uniform.stream(4, commit_every=5)
    loop = iter(stream)
    had = next(loop)
    copied = pickle.loads(pickle.dumps(stream))
    if not (child := os.fork()):
        is_right = stream.commit() == 0 and sorted(next(iter(stream))) != sorted(had)
        os._exit(not is_right)
    assert os.waitpid(child, 0)[1] == 0
    rest = [*itertools.chain(*copied)]
    assert not set(had) & set(rest)
    assert stream.commit() == 4
    assert_sound(uniform)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_batch_that_cannot_be_collated_waits_again(
    new_store: Callable[..., SampleStore], mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = new_store(weighting="uniform", mode=mode)
    store.add(NAMES)
    stream = store.stream(4)
    calls = itertools.count()
    loop = iter(stream.loader(collate_fn=lambda batch: 1 / (2 - next(calls))))
    next(loop)
    next(loop)
    with pytest.raises(ZeroDivisionError):
        next(loop)
    assert store.stats().claimed == 60, "of which eight were had"
    assert (stream.commit(), store.stats().claimed) == (8, 0)
    with pytest.raises(ZeroDivisionError):
        next(iter(stream.loader(collate_fn=lambda batch: 1 / 0)))
    assert store.stats().claimed == 0
    assert_sound(store)
    assert caplog.text == ""


@pytest.mark.slow
def test_a_signal_between_a_claim_and_its_batch_loses_neither(uniform: SampleStore) -> None:
    stream = uniform.stream(4)
    moments = ["sqlbuffer.loading.delivery._cut", "sqlbuffer.core.batch.Batch._end"]
    for moment in [*moments, "sqlbuffer.loading.unsettled.Unsettled.had"]:
        with mock.patch(moment, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            next(iter(stream))
        stream.commit()
        gc.collect()
        wait_for_disposal()
        assert uniform.stats().claimed == 0, moment
    assert_sound(uniform)


@pytest.mark.slow
@pytest.mark.parametrize("has_loader", [False, True])
def test_a_loop_that_was_begun_before_a_fork_takes_nothing_in_the_child(
    uniform: SampleStore, has_loader: bool
) -> None:
    stream = uniform.stream(4, commit_every=8)
    loop = iter(stream.loader(collate_fn=as_it_is) if has_loader else stream)
    had, loop_of_parent = next(loop), stream._unsettled
    if not (child := os.fork()):
        with contextlib.suppress(BaseException):
            with pytest.raises(ClaimLost, match=r"claims belong to .* forked child"):
                next(loop)
            with pytest.raises(ClaimLost, match=r"iter\(stream\)"):
                loop_of_parent.settle()
            os._exit(stream.commit() != 0)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert (settled(uniform).total(), uniform.stats().claimed) == (0, 32)
    assert sorted([*had, *itertools.chain(*loop)]) == sorted(NAMES)
    assert_sound(uniform)


# -- workers ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [0, 2])
def test_each_worker_has_claims_of_its_own(uniform: SampleStore, n_workers: int) -> None:
    stream = uniform.stream(4, commit_every=3)
    loader = stream.loader(num_workers=n_workers, collate_fn=as_it_is)
    had: list[str] = []
    for i, batch in enumerate(loader):
        assert set(settled(uniform)) <= set(had), "what a worker has prefetched is not had"
        had += batch
        if i == 4:
            break
    assert settled(uniform).total() == 12
    assert (loader.state_dict()["batches"], settled(uniform).total()) == (5, 20)
    assert (uniform.stats().claimed, len(uniform)) == (0, 40), "what was prefetched waits again"
    had += itertools.chain(*loader)
    assert sorted(had) == sorted(NAMES)
    assert settled(uniform) == collections.Counter(NAMES)
    assert_sound(uniform)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "batch_size", "n_workers"), [(40, 4, 2), (40, 7, 3), (3, 2, 4)])
def test_a_claim_leaves_a_share_to_each_worker(
    uniform: SampleStore, n: int, batch_size: int, n_workers: int
) -> None:
    uniform.remove(uniform.waiting().ids[n:])
    terms = delivery.Terms(batch_size, commit_every=None, until_empty=True)
    buffer = inside.handle_of(uniform)
    workers = [delivery.deliver(buffer, terms, n_workers=n_workers) for _ in range(n_workers)]
    first = [found for worker in workers if (found := next(worker, None)) is not None]
    assert len(first) == min(n_workers, -(-n // batch_size)), "as many as have a batch"
    had = [name for _, batch in first for name in batch]
    had += [
        name for worker in workers for found in worker if found is not None for name in found[1]
    ]
    assert len(had) == len(set(had)) == n, "each sample is in one claim"
    assert all(receipt.size % batch_size == 0 for receipt, _ in first[:-1]), "whole batches"


@pytest.mark.slow
def test_workers_wait_for_new_samples(
    uniform: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "IDLE_S", 0.01)
    loader = uniform.stream(30, until_empty=False).loader(num_workers=1, collate_fn=as_it_is)
    loop = iter(loader)
    assert sorted(next(loop) + next(loop)) == sorted(NAMES)
    uniform.add(["new"])
    assert next(loop) == ["new"]
    loop.close()
    assert multiprocessing.active_children() == [], "a worker that waits can be ended"


@pytest.mark.slow
def test_what_was_had_outlives_the_workers(uniform: SampleStore) -> None:
    stream = uniform.stream(8, commit_every=None)
    found = list(stream.loader(num_workers=1))
    assert sorted(itertools.chain(*found)) == sorted(NAMES), "collated as torch does"
    assert multiprocessing.active_children() == []
    assert (settled(uniform).total(), uniform.stats().claimed) == (0, 60)
    assert stream.commit() == 60
    assert_sound(uniform)


@pytest.mark.slow
def test_the_claims_of_a_killed_worker_go_back(uniform: SampleStore) -> None:
    stream = uniform.stream(4, commit_every=None)
    loader = stream.loader(num_workers=1, collate_fn=as_it_is, prefetch_factor=1)
    loop = iter(loader)
    had = next(loop)
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        had += itertools.chain(*loop)
    assert 4 <= stream.commit() < 60
    assert set(had) <= set(settled(uniform))
    list(uniform.stream(4))
    assert settled(uniform) == collections.Counter(NAMES)
    assert_sound(uniform)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_stateful_loader_goes_on_from_its_state(
    uniform: SampleStore, n_workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    def make(stream: Any) -> Any:
        return StatefulDataLoader(
            stream, batch_size=None, num_workers=n_workers, persistent_workers=n_workers > 0
        )

    def state_of(loader: Any, stream: Any) -> Any:
        state = loader.state_dict()
        if n_workers:
            stream.commit(state)
        return state

    first = uniform.stream(4, commit_every=None)
    had: list[str] = []
    for i, batch in enumerate(loader := make(first)):
        had += batch
        if i in (1, 3, 6):
            state = state_of(loader, first)
            assert settled(uniform) == collections.Counter(had), "by the end of each part"
        if i == 8:
            break
    del loader, first, had[28:]
    wait_for_disposal()
    second = uniform.stream(4, commit_every=None)
    loader = make(second)
    loader.load_state_dict(torch.load(_saved(state), weights_only=True))
    had += itertools.chain(*loader)
    assert sorted(had) == sorted(NAMES), "what came after the state comes again"
    state_of(loader, second)
    assert second.commit(loader.state_dict()) == 0
    del loader  # its workers end
    assert settled(uniform) == collections.Counter(NAMES)
    assert caplog.messages == []
    assert_sound(uniform)


def _saved(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    gc.collect()  # an exception may hold a loader
    end = time.monotonic() + 5
    while multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.01)
    assert multiprocessing.active_children() == []
