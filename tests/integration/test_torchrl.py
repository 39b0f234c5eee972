"""TorchRL's own replay buffers on a database, in the place of its storage and its sampler."""

import math
import multiprocessing
import os
import pathlib
import pickle
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from scipy import stats

from helpers import inside
from sqlbuffer.errors import InvalidArgument, SettingsMismatch
from sqlbuffer.store import open_store

pytest.importorskip("torchrl")
pytestmark = [
    pytest.mark.integrations,
    pytest.mark.filterwarnings("ignore:Got conflicting batch_sizes"),
]

import tensordict  # noqa: E402
from tensordict import NonTensorStack, TensorDict  # noqa: E402
from torchrl.data import (  # noqa: E402
    LazyTensorStorage,
    ReplayBuffer,
    SamplerWithoutReplacement,
    TensorDictMaxValueWriter,
    TensorDictReplayBuffer,
)
from torchrl.data.replay_buffers.scheduler import LinearScheduler  # noqa: E402

from sqlbuffer.integrations.torchrl import SqlSampler, SqlStorage, SqlWriter  # noqa: E402

multiprocessing.set_start_method(None, force=True)  # TorchRL has set it, for all other tests too

ALPHA, BETA, EPS = 0.6, 0.4, 1e-8


def transitions(n: int, first: int = 0, **more: Any) -> TensorDict:
    """Transitions that can be told apart by their entry "at"."""
    at = torch.arange(first, first + n)
    state = {"observation": at[:, None] + torch.arange(3) / 4, "done": at[:, None] % 2 == 0}
    return TensorDict({"at": at, "next": state, **more}, batch_size=[n])


Make = Callable[..., Any]


@pytest.fixture
def storages() -> Iterator[list[SqlStorage]]:
    opened: list[SqlStorage] = []
    yield opened
    for storage in opened:
        storage.close()


@pytest.fixture
def storage(store_url: str, storages: list[SqlStorage]) -> Make:
    """Opens storages in one database, by default with one name."""

    def make(max_size: int = 20, **options: Any) -> SqlStorage:
        storages.append(SqlStorage(store_url, max_size=max_size, **options))
        return storages[-1]

    return make


@pytest.fixture
def prioritised(storage: Make) -> Make:
    """Opens replay buffers of TensorDicts with priorities on storages in one database."""

    def make(max_size: int = 20, alpha: float = ALPHA, beta: float = BETA, **options: Any) -> Any:
        return TensorDictReplayBuffer(
            storage=storage(max_size), sampler=SqlSampler(alpha, beta), batch_size=8, **options
        )

    return make


def rates(buffer: Any) -> list[float]:
    """The stored rates, by slot."""
    slots, _, scores, _ = buffer.storage.slots.everything()
    assert slots == list(range(len(slots)))
    return list(scores.tolist())


def as_rates(priorities: Any, alpha: float = ALPHA) -> np.ndarray:
    return (np.asarray(priorities, dtype=np.float64) + EPS) ** alpha


def problems(buffer: Any) -> list[str]:
    return list(buffer.storage.store.check())


# -- elements -------------------------------------------------------------------------------------


def test_a_tensordict_is_read_back_as_it_was(storage: Make) -> None:
    data = transitions(
        6,
        scalar=torch.rand(6),
        half=torch.randn(6, 2).half(),
        brain=torch.randn(6, 2, dtype=torch.bfloat16),
        pixels=torch.randint(256, (6, 2, 2, 3), dtype=torch.uint8),
        double=torch.randn(6, 1, dtype=torch.float64),
        agents=TensorDict({"action": torch.randn(6, 2, 4)}, batch_size=[6, 2]),
    )
    buffer = ReplayBuffer(storage=storage())
    buffer.extend(data)
    found = buffer[:]
    assert set(found.keys(True, True)) == set(data.keys(True, True))
    for key in data.keys(True, True):
        assert found[key].dtype == data[key].dtype, key
        assert torch.equal(found[key], data[key]), key
    assert (found.batch_size, found["agents"].batch_size) == ((6,), (6, 2))
    one = buffer[4]
    assert (one == data[4]).all()
    assert (one.batch_size, one["agents"].batch_size) == ((), (2,))


def test_a_trajectory_is_one_element(storage: Make) -> None:
    data = TensorDict({"observation": torch.randn(3, 5, 2)}, batch_size=[3, 5])
    buffer = ReplayBuffer(storage=storage(), batch_size=4)
    buffer.extend(data)
    assert (buffer[:] == data).all()
    assert buffer.sample().batch_size == (4, 5)
    buffer = TensorDictReplayBuffer(storage=storage(name="reduced"), sampler=SqlSampler(1.0, 1.0))
    buffer.extend(data)
    found = buffer.sample(3)
    found["td_error"] = torch.rand(3, 5)
    buffer.update_tensordict_priority(found)
    wanted = found["td_error"].max(1).values
    assert sorted(rates(buffer)) == pytest.approx(sorted(wanted.tolist()))
    assert buffer.sample(3)["priority_weight"].shape == (3, 5)


@pytest.mark.parametrize(
    ("index", "slots"),
    [
        (2, 2),
        (-1, 5),
        (np.int64(3), 3),
        (torch.tensor(4), 4),
        ([1, 1, 0], [1, 1, 0]),
        (range(2, 5), [2, 3, 4]),
        (slice(None, None, 2), [0, 2, 4]),
        (torch.tensor([5, -6]), [5, 0]),
        (np.array([3]), [3]),
        (torch.tensor([[3], [1]]), [3, 1]),
        (torch.arange(6) > 3, [4, 5]),
    ],
    ids=repr,
)
def test_an_index_is_of_any_kind(storage: Make, index: Any, slots: Any) -> None:
    found = storage()
    found.set(range(6), transitions(6))
    assert found.get(index)["at"].tolist() == slots
    assert found[index]["at"].tolist() == slots


def test_trees_tensors_and_lists_are_elements(storage: Make) -> None:
    tree = {"a": torch.randn(4, 2), "b": (torch.arange(4), [torch.zeros(4, 1)])}
    buffer = ReplayBuffer(storage=storage(name="tree"), batch_size=3)
    buffer.extend(tree)
    buffer.add({"a": torch.ones(2), "b": (torch.tensor(4), [torch.ones(1)])})
    sampled = buffer.sample()
    assert sampled["a"].shape == (3, 2)
    assert buffer[:]["b"][0].tolist() == [0, 1, 2, 3, 4]
    assert isinstance(buffer[1]["b"], tuple)

    buffer = ReplayBuffer(storage=storage(name="tensors"), batch_size=3)
    buffer.extend(torch.arange(8).reshape(4, 2))
    assert buffer[:].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]

    buffer = ReplayBuffer(storage=storage(name="list"), batch_size=3)
    buffer.extend(["some", "text"])
    assert buffer[0] == "some"
    assert set(buffer.sample()) <= {"some", "text"}


def test_equal_elements_stay_separate(prioritised: Make) -> None:
    buffer = prioritised()
    buffer.extend(transitions(1).expand(5).clone())
    assert buffer[:]["at"].tolist() == [0] * 5
    assert sorted(buffer.sample(5)["index"].tolist()) == [0, 1, 2, 3, 4]


def test_entries_that_are_no_tensors_are_kept(storage: Make) -> None:
    buffer = ReplayBuffer(storage=storage(), batch_size=3)
    buffer.extend(transitions(3, task=NonTensorStack("walk", "run", "jump")))
    assert list(buffer[:]["task"]) == ["walk", "run", "jump"]
    assert buffer[1]["task"] == "run"
    assert set(buffer.sample()["task"]) <= {"walk", "run", "jump"}


def test_elements_may_differ_in_shape(storage: Make) -> None:
    buffer = ReplayBuffer(storage=storage())
    for n in (2, 3):
        buffer.add(TensorDict({"observation": torch.full((n,), float(n))}, batch_size=[]))
    found = buffer[:]
    assert isinstance(found, tensordict.LazyStackedTensorDict)
    assert found[1]["observation"].tolist() == [3.0, 3.0, 3.0]
    buffer.extend(found)
    assert buffer[3]["observation"].tolist() == [3.0, 3.0, 3.0]


def test_neither_the_priority_nor_the_index_is_stored(prioritised: Make) -> None:
    buffer = prioritised(priority_key=("next", "error"))
    data = transitions(6)
    data["next", "error"] = torch.arange(6.0)
    buffer.extend(data)
    assert set(buffer[:].keys(True, True)) == {"at", ("next", "observation"), ("next", "done")}
    assert rates(buffer) == pytest.approx(as_rates(range(6)))
    assert ("next", "error") in data.keys(True), "the caller's data stays as it is"


# -- the ring -------------------------------------------------------------------------------------


def test_the_slots_are_a_ring(prioritised: Make) -> None:
    buffer = prioritised(20)
    assert buffer.extend(transitions(15)).tolist() == list(range(15))
    assert buffer.extend(transitions(8, 15)).tolist() == [15, 16, 17, 18, 19, 0, 1, 2]
    assert (len(buffer), buffer.write_count) == (20, 23)
    assert buffer[:]["at"].tolist() == [20, 21, 22, *range(3, 20)]
    assert buffer.add(transitions(1, 23)[0]) == 3
    assert buffer.extend(transitions(50, 24)).tolist() == [(4 + i) % 20 for i in range(50)]
    assert sorted(buffer[:]["at"].tolist()) == list(range(54, 74))
    assert buffer[13]["at"] == 73
    assert not problems(buffer)


def test_an_extend_is_one_transaction(prioritised: Make) -> None:
    buffer = prioritised()
    buffer.extend(transitions(15))
    commits: list[str] = []
    engine = inside.engine_of(buffer.storage.store)
    sa.event.listen(engine, "commit", lambda _: commits.append("commit"))
    buffer.extend(transitions(12, 15), update_priority=False)
    assert commits == ["commit"]
    commits.clear()
    buffer.add(transitions(1, 27)[0])
    assert commits == ["commit"], "its default priority is written with it"


def test_storages_in_several_processes_share_the_cursor(prioritised: Make) -> None:
    one, other = prioritised(), prioritised()
    for i in range(6):
        (one, other)[i % 2].extend(transitions(7, 7 * i))
    assert len(one) == len(other) == 20
    assert (one.write_count, other.write_count) == (42, 42)
    assert sorted(one[:]["at"].tolist()) == list(range(22, 42))
    assert one[1]["at"] == other[1]["at"] == 41
    assert not problems(one)


def test_an_emptied_buffer_begins_again(prioritised: Make) -> None:
    buffer = prioritised()
    buffer.extend(transitions(25, td_error=torch.rand(25) * 9))
    buffer.empty()
    assert (len(buffer), buffer.write_count) == (0, 0)
    with pytest.raises(RuntimeError, match="Cannot sample from an empty storage"):
        buffer.sample()
    with pytest.raises(IndexError, match="out of range"):
        buffer[0]
    assert buffer.extend(transitions(3, 30)).tolist() == [0, 1, 2]
    assert buffer[:]["at"].tolist() == [30, 31, 32]
    assert rates(buffer) == [1.0, 1.0, 1.0]
    buffer.empty(empty_write_count=False)
    assert buffer.write_count == 3
    assert not problems(buffer)


def test_set_does_what_storages_do(storage: Make) -> None:
    found = storage()
    found.set(range(4), transitions(4))
    found[1] = transitions(1, 50)[0]
    found[torch.tensor([0, 3])] = transitions(2, 60)
    assert found.get(slice(None))["at"].tolist() == [60, 50, 2, 61]
    assert found.slots.cursor == (4, 4), "an assignment leaves the cursor"
    found.set([2, 2], transitions(2, 70))
    assert (found.get(2)["at"], found.slots.cursor) == (71, (3, 6))
    assert [element["at"].item() for element in found] == [60, 50, 71, 61]
    assert 3 in found
    assert 4 not in found
    assert found.contains(torch.tensor([-4, -5, 3, 4])).tolist() == [True, False, True, False]


# -- sampling -------------------------------------------------------------------------------------


def test_a_sample_has_the_keys_of_a_prioritised_sampler(prioritised: Make) -> None:
    buffer = prioritised()
    buffer.extend(transitions(20, td_error=torch.rand(20) + 0.1))
    found, info = buffer.sample(return_info=True)
    assert set(info) == {"index", "priority_weight"}
    assert torch.equal(found["at"], found["index"])
    assert torch.equal(found["index"], info["index"])
    assert torch.equal(found["priority_weight"], info["priority_weight"])
    assert (info["index"].dtype, info["priority_weight"].dtype) == (torch.int64, torch.float32)
    assert len(set(info["index"].tolist())) == 8, "none comes twice within a claim"


@pytest.mark.parametrize(("alpha", "beta"), [(0.6, 0.4), (1.0, 1.0), (0.0, 1.0), (0.5, 0.0)])
def test_weights_are_those_of_the_formula(prioritised: Make, alpha: float, beta: float) -> None:
    buffer = prioritised(alpha=alpha, beta=beta)
    priorities = np.random.default_rng(1).exponential(3.0, 20)
    buffer.extend(transitions(20, td_error=torch.from_numpy(priorities)))
    for _ in range(4):
        found = buffer.sample()
        p = as_rates(priorities, alpha)
        wanted = (p[found["index"]] / p.min()) ** -beta
        assert found["priority_weight"].numpy() == pytest.approx(wanted, rel=1e-5)
        priorities[found["index"]] = np.random.default_rng(2).exponential(3.0, 8) + 0.01
        found["td_error"] = torch.from_numpy(priorities[found["index"]])
        buffer.update_tensordict_priority(found)
    p = as_rates(priorities, alpha)
    unbiased = (p / p.sum() * len(p)) ** -beta
    found = buffer.sample()
    assert found["priority_weight"].numpy() == pytest.approx(
        (unbiased / unbiased.max())[found["index"]], rel=1e-5
    )


def test_elements_are_drawn_by_the_power_of_their_priority(prioritised: Make) -> None:
    """The first of each claim is one draw; p of the chi-square test is above 1e-3 for this seed."""
    buffer = prioritised(4, alpha=1 / 3)
    buffer.extend(transitions(4, td_error=torch.tensor([1.0, 8.0, 27.0, 64.0])))
    drawn = [buffer.storage.slots.draw(4).slots[0] for _ in range(120)]
    counts = np.bincount(drawn, minlength=4)
    assert stats.chisquare(counts, 120 * np.array([0.1, 0.2, 0.3, 0.4])).pvalue > 1e-3
    assert stats.chisquare(counts, 120 * np.array([1, 8, 27, 64]) / 100).pvalue < 1e-3


def test_draws_follow_new_priorities(prioritised: Make) -> None:
    buffer = prioritised(20, alpha=1.0)
    buffer.extend(transitions(20, td_error=torch.full((20,), 1e-6)))
    buffer.update_priority(torch.tensor([3, 7]), torch.tensor([1e6, 1e6]))
    for _ in range(3):
        assert set(buffer.storage.slots.draw(2).slots.tolist()) == {3, 7}
    buffer.update_priority(3, 0.0)
    buffer.extend(transitions(5, 20))
    assert 7 in buffer.storage.slots.draw(6).slots.tolist()
    assert rates(buffer)[:5] == [1e6 + EPS] * 5, "new elements have the highest priority so far"


def test_a_batch_may_be_larger_than_the_storage(prioritised: Make) -> None:
    buffer = prioritised()
    buffer.extend(transitions(5))
    found = buffer.sample(12)
    assert sorted(found["at"][:5].tolist()) == sorted(found["at"][5:10].tolist()) == list(range(5))
    assert torch.equal(found["at"], found["index"])


def test_any_sequence_of_calls_keeps_rows_and_priorities_together(prioritised: Make) -> None:
    """Against a model in memory; a second process writes in between, and calls are reopened."""
    rng = np.random.default_rng(5)
    buffers = [prioritised(16), prioritised(16)]
    content, rate, cursor, n = [-1] * 16, np.zeros(16), 0, 0
    for step in range(24):
        if step == 16:
            buffers[1] = prioritised(16)
        buffer = buffers[rng.integers(2)]
        if rng.random() < 0.5:
            m = int(rng.integers(1, 9))
            errors = rng.exponential(1.0, m)
            buffer.extend(transitions(m, n, td_error=torch.from_numpy(errors)))
            for error in errors:
                content[cursor], rate[cursor] = n, as_rates(error)
                cursor, n = (cursor + 1) % 16, n + 1
        elif n:
            found = buffer.sample(4)
            assert found["at"].tolist() == [content[i] for i in found["index"]]
            errors = rng.exponential(1.0, 4)
            buffer.update_priority(found["index"], torch.from_numpy(errors))
            rate[found["index"]] = as_rates(errors)
    assert buffers[0][:]["at"].tolist() == content
    assert rates(buffers[0]) == pytest.approx(rate.tolist())
    assert not problems(buffers[0])


def test_a_priority_is_not_given_to_another_element(prioritised: Make) -> None:
    """Another process overwrites an element between its draw and its update."""
    learner, actor = prioritised(8, alpha=1.0), prioritised(8, alpha=1.0)
    actor.extend(transitions(8, td_error=torch.ones(8)))
    found = learner.sample(8)
    actor.extend(transitions(3, 8))
    found["td_error"] = torch.full((8,), 5.0)
    learner.update_tensordict_priority(found)
    assert rates(learner) == pytest.approx([1.0] * 3 + [5.0] * 5)
    learner.update_tensordict_priority(learner.sample(8).set("td_error", torch.full((8,), 7.0)))
    assert rates(learner) == pytest.approx([7.0] * 8)


@pytest.mark.parametrize("n", [0, 3])
def test_other_samplers_work_too(storage: Make, n: int) -> None:
    buffer = ReplayBuffer(storage=storage(), batch_size=4, prefetch=n or None)
    buffer.extend(transitions(12))
    assert isinstance(buffer.writer, SqlWriter)
    for _, found in zip(range(3), buffer, strict=False):
        assert found["at"].shape == (4,)
    epoch = ReplayBuffer(storage=buffer.storage, sampler=SamplerWithoutReplacement(), batch_size=4)
    seen = torch.cat([epoch.sample()["at"] for _ in range(3)])
    assert sorted(seen.tolist()) == list(range(12))


def test_prefetched_batches_and_transforms(prioritised: Make) -> None:
    buffer = prioritised(prefetch=2, transform=lambda data: data.set("twice", data["at"] * 2))
    buffer.extend(transitions(12))
    for _ in range(4):
        found = buffer.sample()
        assert torch.equal(found["twice"], found["index"] * 2)
        buffer.update_priority(found["index"], torch.rand(8))
    buffer._prefetch_executor.shutdown()
    assert not problems(buffer)


def test_exponents_change_by_a_schedule(prioritised: Make) -> None:
    buffer = prioritised(beta=0.5)
    schedule = LinearScheduler(buffer, "beta", final_value=1.0, num_steps=2)
    buffer.extend(transitions(12, td_error=torch.arange(1.0, 13.0)))
    schedule.step()
    schedule.step()
    found = buffer.sample()
    wanted = as_rates(found["index"] + 1) ** -1.0
    assert found["priority_weight"].numpy() == pytest.approx(wanted, rel=1e-5)


def test_the_best_elements_are_kept_by_another_writer(storage: Make) -> None:
    writer = TensorDictMaxValueWriter(rank_key="at")
    buffer = TensorDictReplayBuffer(storage=storage(5), writer=writer, batch_size=5)
    buffer.extend(transitions(30)[torch.randperm(30)])
    assert sorted(buffer[:]["at"].tolist()) == list(range(25, 30))


def test_a_sampler_may_come_later(storage: Make) -> None:
    buffer = TensorDictReplayBuffer(storage=storage(), batch_size=4)
    buffer.extend(transitions(6))
    buffer.set_sampler(SqlSampler(ALPHA, BETA))
    found = buffer.sample()
    assert torch.equal(found["at"], found["index"])
    assert "priority_weight" in found.keys()  # noqa: SIM118 - of a TensorDict


# -- opened again ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": torch.tensor([0, 0, 1])},
        {"slots": torch.tensor([-1, 0, 1])},
        {"slots": torch.arange(2)},
        {"scores": torch.tensor([1.0, math.nan, 1.0], dtype=torch.float64)},
        {"payloads_bytes": torch.zeros(3, dtype=torch.uint8)},
        {"cursor": [1, 2, 3]},
        {"slots": None},
    ],
    ids=["same slots", "negative slot", "few slots", "nan", "few bytes", "cursor", "no slots"],
)
def test_a_state_that_is_damaged_is_refused(storage: Make, wrong: dict[str, Any]) -> None:
    filled = storage()
    filled.append(torch.arange(6.0).reshape(3, 2))
    with pytest.raises(InvalidArgument, match=r"state of a SqlStorage"):
        filled.load_state_dict({**filled.state_dict(), **wrong})
    with pytest.raises(InvalidArgument, match=r"KeyError: 'slots'"):
        filled.load_state_dict(LazyTensorStorage(20).state_dict())
    assert filled.get(range(3)).tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="memory on Linux")
def test_a_storage_takes_memory_for_its_elements_alone(storage: Make) -> None:
    def pages() -> int:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1])

    before = pages()
    storage(max_size=50_000_000).append(torch.zeros(1))
    assert (pages() - before) * os.sysconf("SC_PAGE_SIZE") < 100e6


@pytest.mark.parametrize(
    ("alpha", "priority"), [(1e-3, 100.0), (3.0, 1e300), (1.0, 1e200), (50.0, 0.0)]
)
def test_extreme_powers_leave_all_elements_drawable(
    prioritised: Make, alpha: float, priority: float
) -> None:
    buffer = prioritised(max_size=6, alpha=1.0)
    buffer.extend(transitions(6))
    buffer.update_priority(torch.arange(6), torch.full((6,), 100.0))
    buffer.sampler.alpha = alpha  # as a schedule does
    given = torch.tensor([2.0, priority], dtype=torch.float64)
    buffer.update_priority(torch.tensor([1, 2]), given)
    buffer.extend(transitions(1, first=6))
    assert math.isfinite(buffer.sampler.default_priority)
    assert np.isfinite(rates(buffer)).all()
    assert sorted(buffer.sample(6)["index"].tolist()) == list(range(6))
    assert problems(buffer) == []


def test_a_storage_that_is_opened_again_goes_on(prioritised: Make) -> None:
    buffer = prioritised()
    buffer.extend(transitions(27, td_error=torch.rand(27) * 9))
    buffer.update_priority(torch.arange(5), torch.arange(5.0))
    known = rates(buffer)
    buffer.storage.close()
    again = prioritised()
    assert rates(again) == known, "TorchRL's default priorities are not written"
    assert (len(again), again.write_count) == (20, 27)
    assert (again[:] == buffer[:]).all()
    assert again.sampler.default_priority == pytest.approx(max(known) ** (1 / ALPHA))
    assert again.extend(transitions(2, 27)).tolist() == [7, 8]
    again.update_priority(torch.arange(20), torch.full((20,), again.sampler.default_priority))
    assert rates(again) == pytest.approx([max(known)] * 20), "but those of a user are"


def test_a_buffer_may_be_opened_while_another_process_writes(prioritised: Make) -> None:
    """Between the moment when it is made and TorchRL's call for all elements."""
    buffer = prioritised()
    buffer.extend(transitions(5, td_error=torch.arange(5.0)))

    class Interrupted(SqlSampler):
        def attach(self, storage: Any) -> None:
            super().attach(storage)
            buffer.extend(transitions(2, 5, td_error=torch.tensor([7.0, 8.0])))

    again = TensorDictReplayBuffer(storage=buffer.storage, sampler=Interrupted(ALPHA, BETA))
    assert rates(again) == pytest.approx(as_rates([0, 1, 2, 3, 4, 7, 8]))


def test_a_killed_process_loses_nothing(store_url: str, prioritised: Make) -> None:
    """Killed between two calls, in the middle of the work of a learner."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
        child = os.fork()
    if child == 0:
        try:
            buffer = prioritised()
            for i in range(4):
                errors = torch.arange(7.0) + i
                buffer.extend(transitions(7, 7 * i, td_error=errors))
                found = buffer.sample()
                buffer.update_priority(found["index"], found["at"].float())
            os.write(writer, pickle.dumps((rates(buffer), buffer[:]["at"].tolist())))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        known, content = pickle.loads(told.read())
    again = prioritised()
    assert (rates(again), again[:]["at"].tolist()) == (known, content)
    assert again.extend(transitions(1, 28)).tolist() == [8]
    found = again.sample()
    again.update_priority(found["index"], torch.ones(8))
    assert not problems(again)


def test_a_state_is_restored_elsewhere(
    prioritised: Make, storage: Make, tmp_path: pathlib.Path
) -> None:
    buffer = prioritised()
    buffer.extend(transitions(27, td_error=torch.rand(27) * 9))
    state = pickle.loads(pickle.dumps(buffer.state_dict()))
    buffer.dumps(tmp_path / "dump")
    known, content = rates(buffer), buffer[:]
    buffer.extend(transitions(9, 27))
    buffer.load_state_dict(state)
    other = TensorDictReplayBuffer(
        storage=storage(30, name="other"), sampler=SqlSampler(1.0, 1.0), batch_size=4
    )
    other.loads(tmp_path / "dump")
    for each in (buffer, other):
        assert rates(each) == known
        assert (each[:] == content).all()
        assert each.write_count == 27
        assert not problems(each)
    assert (other.sampler.alpha, other.sampler.beta) == (ALPHA, BETA)
    assert buffer.extend(transitions(1, 27)).tolist() == [7]
    with pytest.raises(InvalidArgument, match="larger storage than one of 5"):
        storage(5, name="small").load_state_dict(state["_storage"])


def test_buffers_travel_to_other_processes(prioritised: Make) -> None:
    buffer = prioritised()
    buffer.extend(transitions(12, td_error=torch.arange(12.0)))
    sent = pickle.loads(pickle.dumps(buffer))
    assert sent.extend(transitions(2, 12)).tolist() == [12, 13]
    assert buffer[:]["at"].tolist() == list(range(14))
    assert torch.equal(sent.sample()["index"], sent.sample()["at"]) is False
    assert len({id(each.storage.slots) for each in (buffer, sent)}) == 2
    sent.storage.close()


def test_a_buffer_is_looked_at_like_any_other(store_url: str, prioritised: Make) -> None:
    buffer = prioritised()
    buffer.extend(transitions(3))
    with buffer.storage.store.connect() as connection:
        found = connection.execute(sa.text("SELECT key, text, queued FROM samples ORDER BY id"))
        keys, texts, queued = zip(*found, strict=True)
    assert keys == ("0", "1", "2")
    assert all("observation" in text for text in texts)
    assert all(queued)
    with pytest.raises(InvalidArgument, match="write them with the replay buffer"):
        buffer.storage.store.add([{"at": 1}])


# -- errors ---------------------------------------------------------------------------------------


def test_wrong_priorities_are_refused_and_nothing_is_stored(prioritised: Make) -> None:
    buffer = prioritised()
    buffer.extend(transitions(6, td_error=torch.ones(6)))
    known = rates(buffer)
    for index, priorities in [
        ([0, 1], [1.0, 2.0, 3.0]),
        ([0, 1], [1.0, math.nan]),
        ([0, 1], [1.0, math.inf]),
        ([0, 1], [1.0, -1.0]),
    ]:
        with pytest.raises(InvalidArgument):
            buffer.update_priority(torch.tensor(index), torch.tensor(priorities))
    with pytest.raises(IndexError, match="slot 20 is out of range"):
        buffer.update_priority(torch.tensor([0, 20]), torch.tensor([9.0, 9.0]))
    assert rates(buffer) == known
    buffer.update_priority(torch.tensor([-1, 1]), torch.tensor([5.0, 2.0]))
    assert rates(buffer) == pytest.approx(as_rates([1, 2, 1, 1, 1, 1])), "-1 is skipped"


def ragged() -> Any:
    parts = [TensorDict({"a": torch.rand(2, n)}, batch_size=[2]) for n in (3, 4)]
    return tensordict.LazyStackedTensorDict(*parts, stack_dim=1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: SqlStorage(s.store.url, max_size=0), "max_size must be a positive number"),
        (lambda s: SqlSampler(-0.1, 1.0), "alpha must be a number of 0 or more"),
        (lambda s: SqlSampler(1.0, math.nan), "beta must be"),
        (lambda s: SqlSampler(1.0, 1.0).max_size, "before it is in a replay buffer"),
        (lambda s: SqlSampler(1.0, 1.0).sample(LazyTensorStorage(3), 2), "has LazyTensorStorage"),
        (lambda s: SqlStorage(s.store.url, max_size=2**40), r"at most 2,147,483,647; got 1099"),
        (lambda s: s.set([0, 1], transitions(3)), "2 slots came with 3 elements"),
        (lambda s: s.set([1, 0, 3], transitions(3)), "0 to 3 would have a gap.*slot 0 comes next"),
        (lambda s: s.append({"a": torch.ones(3), "b": 1}), "a tree with 1 has no rows"),
        (lambda s: s.append(transitions(3)[0]), "without a batch size"),
        (lambda s: s.append(transitions(1, **{"=": torch.ones(1)})), "the key '='"),
        (lambda s: s.append(ragged()), "pad its entries"),
        (lambda s: s.get("at"), "an index is an integer"),
        (lambda s: s.get(torch.ones(2)), "an index is an integer"),
    ],
    ids=range(14),
)
def test_errors_name_the_way_out(storage: Make, call: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        call(storage())


def test_a_tensorclass_is_refused(storage: Make) -> None:
    @tensordict.tensorclass
    class Step:
        at: torch.Tensor

    with pytest.raises(InvalidArgument, match=r"a Step is a tensorclass.*to_tensordict"):
        storage().append(Step(at=torch.ones(3), batch_size=[3]))


def test_other_settings_are_refused(store_url: str, storage: Make) -> None:
    storage(20)
    with pytest.raises(SettingsMismatch, match="max_size"):
        SqlStorage(store_url, max_size=21)
    with open_store(store_url, name="pool", mode="replay") as pool:
        with pytest.raises(SettingsMismatch, match=r"'pool' was not made by SqlStorage: give name"):
            SqlStorage(store_url, max_size=20, name="pool")
        assert pool.stats().max_size is None, "nothing was stored in it"
