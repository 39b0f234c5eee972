"""Silence is what a process has watched, by a clock that is never set, not a difference of two
times that were read.
"""

import copy
import math
import pickle

import pytest

from sqlbuffer.core import watch
from sqlbuffer.core.watch import Watch


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(watch, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def same(watching: Watch, gap_s: float = 30.0, **values: object) -> dict[str, float]:
    return watching.same_for_s("workers", values, began=watching.begin(), gap_s=gap_s)


def test_the_first_look_tells_nothing_and_a_change_begins_again(clock: Clock) -> None:
    watching = Watch()
    assert same(watching, a=1) == {"a": 0.0}
    clock.now += 10
    assert same(watching, a=1, b=1) == {"a": 10.0, "b": 0.0}
    clock.now += 10
    assert same(watching, a=2, b=1) == {"a": 0.0, "b": 10.0}
    clock.now += 10
    assert same(watching, b=1) == {"b": 20.0}
    assert same(watching, a=2, b=1)["a"] == 0.0, "what was gone has come back"


def test_a_process_that_was_stopped_has_not_watched(clock: Clock) -> None:
    """A container that is paused with all others for an hour sees the old heartbeats once more when
    it wakes up.
    """
    watching = Watch()
    same(watching, a=1)
    clock.now += 3600
    assert same(watching, a=1) == {"a": 30.0}
    clock.now += 10
    assert same(watching, a=2) == {"a": 0.0}


def test_a_look_counts_up_to_its_beginning(clock: Clock) -> None:
    """What was read before a pause may have changed in it."""
    watching = Watch()
    same(watching, a=1)
    began = watching.begin()
    clock.now += 1000
    assert watching.same_for_s("workers", {"a": 1}, began=began, gap_s=30.0) == {"a": 0.0}


def test_groups_and_watches_are_apart(clock: Clock) -> None:
    one, other = Watch(), Watch()
    same(one, a=1)
    same(other, a=1)
    clock.now += 10
    assert one.same_for_s("jobs", {"a": 1}, began=one.begin(), gap_s=30.0) == {"a": 0.0}
    assert same(one, a=1) == {"a": 10.0}
    assert same(pickle.loads(pickle.dumps(one)), a=1) == {"a": 0.0}, (
        "another process has seen nothing"
    )
    assert copy.copy(one) is not one


@pytest.mark.parametrize("jump_s", [-18_000.0, -60.0, 0.0, 120.0, 18_000.0])
def test_the_age_of_what_came_is_what_was_seen(clock: Clock, jump_s: float) -> None:
    """The clock that tells is set between the two looks: it is believed no further than what was
    seen leaves open.
    """
    watching = Watch()

    def age_s(value: int, told_s: float) -> float:
        return watching.age_s("starts", "retrain", value, told_s=told_s, began=watching.begin())

    assert age_s(1, 500.0) == 500.0
    clock.now += 100
    assert age_s(1, 600.0 + jump_s) == 600.0
    clock.now += 10
    assert 0.0 <= age_s(2, 4.0 + jump_s) <= 10.0
    clock.now += 100
    assert 100.0 <= age_s(2, 104.0 - jump_s) <= 110.0


def test_what_has_come_in_the_future_is_of_unknown_age(clock: Clock) -> None:
    assert Watch().age_s("starts", "retrain", 1, told_s=-0.5, began=clock.now) == math.inf
