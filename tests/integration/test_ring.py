"""A buffer as a ring of numbered slots, without the library whose replay buffers are one."""

import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from sqlbuffer.core import priorities, ring
from sqlbuffer.core.places import AllPlaces
from sqlbuffer.errors import InvalidPayload, MissingExtra
from sqlbuffer.integrations.slots import Slots

Open = Callable[..., Slots]


@pytest.fixture
def open_ring(store_url: str) -> Iterator[Open]:
    """Opens one ring, each time as another process would."""
    opened: list[Slots] = []

    def make(max_size: int = 12) -> Slots:
        opened.append(Slots(store_url, max_size=max_size))
        return opened[-1]

    yield make
    for slots in opened:
        slots.store.close()


def samples(n: int, first: int = 0) -> list[Any]:
    return [{"at": i, "state": np.full(2, i, np.float32)} for i in range(first, first + n)]


def content(slots: Slots) -> list[int]:
    return list(slots.read(range(len(slots))).stacked()["at"])


def test_two_processes_write_draw_and_update_as_a_model_does(open_ring: Open) -> None:
    rng = np.random.default_rng(3)
    processes = [open_ring(), open_ring()]
    model, rate, at, n = [-1] * 12, np.zeros(12), 0, 0
    for _ in range(16):
        slots = processes[rng.integers(2)]
        if rng.random() < 0.4 or not n:
            m = int(rng.integers(1, 20))
            written = slots.append(samples(m, n))
            rates = rng.exponential(1.0, m) + 0.01
            slots.update(written, rates)
            for each in rates:
                model[at], rate[at] = n, each
                at, n = (at + 1) % 12, n + 1
        else:
            picked = slots.draw(5)
            assert [model[i] for i in picked.slots] == list(picked.samples.stacked()["at"])
            assert picked.weights == pytest.approx(rate[picked.slots])
            rate[picked.slots] = rng.exponential(1.0, 5) + 0.01
            slots.update(picked.slots.tolist(), rate[picked.slots])
            if len(slots) < 12:
                continue
            assert slots.highest >= max(rate[picked.slots])
    assert content(processes[0]) == model[: min(n, 12)]
    assert processes[1].everything()[2] == pytest.approx(rate)
    assert processes[0].cursor == ring.Cursor(at, n)
    assert processes[0].store.check() == []


def test_the_lowest_weight_is_exact_in_one_process(open_ring: Open) -> None:
    slots, rate = open_ring(), np.ones(12)
    rng = np.random.default_rng(4)
    assert slots.lowest == np.inf
    slots.append(samples(12))
    for i in range(7):
        picked = slots.draw(4).slots
        rate[picked] = rng.exponential(1.0, 4)
        slots.update(picked.tolist(), rate[picked])
        if i % 3 == 0:
            written, rate[slots.cursor.slot] = slots.append(samples(1)), slots.highest
            assert len(written) == 1
        assert slots.lowest == rate.min()
    assert open_ring().lowest == rate.min()
    assert open_ring().highest == rate.max()


def test_a_ring_is_written_and_drawn_without_a_scan(
    open_ring: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process finds all samples by their keys; another one's draws cost one scan."""
    scans: list[int] = []
    scan = priorities.scanned

    def counted(tx: Any, ids: set[int], **more: Any) -> Any:
        scans.append(len(ids))
        return scan(tx, ids, **more)

    monkeypatch.setattr(priorities, "scanned", counted)
    slots, other = open_ring(), open_ring()
    for i in range(4):
        slots.append(samples(5, 5 * i))
        picked = slots.draw(4).slots.tolist()
        slots.update(picked, np.ones(4))
        slots.update([0, 1], np.ones(2))
    assert scans == []
    other.draw(12)
    slots.append(samples(5))
    assert scans == [5]
    slots.append(samples(5))
    assert scans == [5, 5]
    slots.append(samples(2))
    slots.append(samples(5))
    assert scans == [5, 5, 2], "each sample once"


def test_the_weights_of_others_are_read_after_a_while(
    open_ring: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlbuffer.integrations.slots.USES", 3)
    slots, other = open_ring(), open_ring()
    slots.append(samples(12))
    assert (slots.lowest, slots.highest) == (1.0, 1.0)
    other.update(other.draw(12).slots.tolist(), np.linspace(0.1, 9.0, 12))
    slots.append(samples(3))
    slots.draw(1)
    slots.append(samples(3))
    assert slots.highest == 9.0


def test_a_forgotten_or_strange_cursor(open_ring: Open) -> None:
    slots = open_ring()
    slots.append(samples(5))
    for state in (b"[1]", b"{", b"[1, null]"):
        slots.store.save_checkpoints({ring.CURSOR: state}, iteration=0)
        with pytest.raises(InvalidPayload, match="cursor"):
            _ = slots.cursor


def test_the_integration_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sqlbuffer.integrations.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchrl.data", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sqlbuffer\[torchrl\]'"):
        importlib.import_module("sqlbuffer.integrations.torchrl")


def test_places_of_a_whole_pool() -> None:
    places = AllPlaces(6)
    places.note(np.array([7, 3]), np.array([0.7, 0.3]))
    places.note(np.array([9, 3, 5]), np.array([0.9, 0.33, 0.5]))
    assert places.find([3, 4, 5, 9]) == {3: 0.33, 5: 0.5, 9: 0.9}
    assert places.all_ids() == [3, 5, 7, 9]
    places.correct({5: 0.55, 6: 0.6})
    assert places.find([5, 6]) == {5: 0.55}
    assert places.weigh(np.array([3, 9]), np.array([2.0, 4.0])) != 2.0
    assert places.weigh(np.array([3]), np.array([0.0])) == 2.0
    assert places.weights().tolist() == [4.0]
    places.number(np.array([9, 8]), np.array([90, 80]))
    assert places.slots(np.array([3, 8, 9])).tolist() == [-1, -1, 90]
    places.learn(np.array([9, 7]), np.ones(2), np.ones(2), epoch=1)
    assert places.slots(np.array([7, 9])).tolist() == [-1, 90], "the slot of a row never changes"
    places.note(np.array([1, 2]), np.ones(2))
    assert places.all_ids() == [1, 2, 7, 9]
    places.note(np.array([10, 11, 12]), np.ones(3))
    assert places.all_ids() == [], "more than there can be: of another state of the database"
    places.learn(np.array([2, 1]), np.array([0.2, 0.1]), np.ones(2), epoch=4)
    assert (places.find([1, 2]), places.epoch) == ({1: 0.1, 2: 0.2}, 4)
    assert places.find([]) == {}


def test_a_ring_that_went_back_to_an_earlier_state(open_ring: Open) -> None:
    """The keys, the weights and the generations that a process remembers may be those of later."""
    slots = open_ring()
    slots.append(samples(12))
    before = slots.everything()
    slots.append(samples(7))
    slots.draw(12)
    other = open_ring()
    other.restore(before[0], before[1], before[2], before[3])
    assert sorted(slots.draw(12).slots.tolist()) == list(range(12))
    slots.append(samples(3, 50))
    slots.update([0, 5], np.array([3.0, 4.0]))
    assert content(slots) == [50, 51, 52, *range(3, 12)]
    assert slots.everything()[2].tolist() == [3.0, 1.0, 1.0, 1.0, 1.0, 4.0, *[1.0] * 6]
    assert slots.store.check() == []
