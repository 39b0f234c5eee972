"""Claims that outlive a process: leased, detached with a token, taken up again, expired."""

import math
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers import inside
from helpers.samples import scores_of
from sqlbuffer.core import reaper
from sqlbuffer.errors import ClaimLost, InvalidArgument
from sqlbuffer.store import SampleStore, open_store

OpenStore = Callable[..., SampleStore]
TEN = [f"s{i}" for i in range(10)]


@pytest.fixture(params=["consume", "replay"])
def scored(new_store: OpenStore, request: pytest.FixtureRequest) -> SampleStore:
    store = new_store(mode=request.param)
    store.add(TEN, meta=[{"number": i} for i in range(10)])
    store.score(scores_of)
    return store


def test_a_batch_is_taken_up_as_it_was_drawn(scored: SampleStore) -> None:
    batch = scored.sample(4, pct_argmax=0.5, lease_s=60)
    token = batch.detach()
    for act in (
        lambda: batch.settle([1.0] * 4),
        lambda: batch.report(batch.ids, [1.0] * 4),
        batch.release,
        batch.detach,
    ):
        with pytest.raises(ClaimLost, match=r"detached|settled or released"):
            act()
    assert scored.rewards_of(batch.samples) == [None] * 4
    taken = scored.batch(token)
    assert taken.detach() == token
    taken = scored.batch(token)
    for name in ("id", "iteration", "samples", "sources", "clock", "meta"):
        assert getattr(taken, name) == getattr(batch, name)
    np.testing.assert_array_equal(taken.ids, batch.ids)
    np.testing.assert_array_equal(taken.weights, batch.weights)
    np.testing.assert_array_equal(taken.info.argmax, batch.info.argmax)
    assert np.isnan(taken.info.probability).all()
    assert taken.meta == [{"number": int(sample[1:])} for sample in batch.samples]


def test_a_batch_tells_which_samples_have_no_report(scored: SampleStore) -> None:
    """Of any process, with a reward or a failure, settled or not."""
    batch = scored.sample(4, lease_s=60)
    assert batch.unreported.tolist() == batch.ids.tolist()
    batch.report(batch.ids[:1], [1.0])
    batch.fail(batch.ids[2:3], "did not dissolve", settle=False)
    taken = scored.batch(batch.detach())
    assert taken.unreported.tolist() == batch.ids[[1, 3]].tolist()
    taken.report(taken.unreported, [2.0, 3.0])
    assert taken.unreported.tolist() == batch.ids[[]].tolist() == []
    with scored.sample(0) as empty:
        assert empty.unreported.dtype == np.int64


OTHER = """
import sys
from sqlbuffer.store import open_store

with open_store(sys.argv[1]) as store:
    if sys.argv[2] == "draw":
        print(store.sample(3, lease_s=600).detach())
    else:
        batch = store.batch(sys.argv[2])
        batch.report(batch.ids[:1], [5.0])
"""


@pytest.mark.slow
def test_a_batch_goes_from_process_to_process(store_url: str) -> None:
    """None of which lives until the next; a batch that is dropped stays claimed."""

    def run(word: str) -> str:
        command = [sys.executable, "-c", OTHER, store_url, word]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with open_store(store_url) as store:
        store.add(TEN)
        store.score(scores_of)
        token = run("draw")
        run(token)
        open_store(store_url).close()
        stats = store.stats()
        assert (stats.claimed, stats.measured, stats.waiting) == (2, 1, 7)
        with store.batch(token) as batch:
            pass
        assert (store.stats().claimed, store.check()) == (2, [])
        batch = store.batch(token)
        batch.settle([6.0, 7.0], ids=batch.ids[1:])
        assert store.rewards_of(batch.samples) == [5.0, 6.0, 7.0]
        with pytest.raises(ClaimLost, match="settled or released"):
            store.batch(token)
        assert (store.stats().claimed, store.check()) == (0, [])


@pytest.mark.slow
def test_an_expired_lease_is_released_by_anyone(scored: SampleStore) -> None:
    batch = scored.sample(3, lease_s=0.3)
    token = batch.detach()
    late = scored.batch(token)
    handle = inside.handle_of(scored)
    assert reaper.release_dead(handle) == 0
    time.sleep(0.5)
    with pytest.raises(ClaimLost, match="lease is over"):
        scored.batch(token)
    assert reaper.release_dead(handle) == 1
    assert (scored.stats().claimed, scored.check()) == (0, [])
    with pytest.raises(ClaimLost, match="lease is over"):
        scored.batch(token)
    with pytest.raises(ClaimLost):
        late.settle([1.0, 2.0, math.nan])
    assert scored.rewards_of(batch.samples) == [1.0, 2.0, None]


def test_what_is_no_token_or_no_lease_is_refused(scored: SampleStore, store_url: str) -> None:
    with open_store(store_url, name="other", weighting="uniform") as other:
        other.add(TEN)
        token = other.sample(2, lease_s=60).detach()
        with pytest.raises(InvalidArgument, match=r"buffer 'other', not of"):
            scored.batch(token)
        other.batch(token).release()
    for wrong in ("nonsense", "", 3, None):
        with pytest.raises(InvalidArgument, match="token"):
            scored.batch(wrong)  # type: ignore[arg-type]
    with scored.sample(2) as batch, pytest.raises(InvalidArgument, match="has no lease"):
        batch.detach()
    with pytest.raises(ClaimLost):
        batch.detach()
    lease_s: Any
    for lease_s in (0, -1, math.inf, math.nan, "day"):
        with pytest.raises(InvalidArgument, match="lease_s must be"):
            scored.sample(1, lease_s=lease_s)


def test_a_lease_without_a_token_ends_like_any_batch(scored: SampleStore) -> None:
    with scored.sample(2, lease_s=60):
        pass
    assert scored.stats().claimed == 0
    token = scored.sample(2, lease_s=60).detach()
    with scored.copy("copy") as copy:
        assert (copy.stats().claimed, copy.check()) == (0, [])
        with pytest.raises(InvalidArgument, match="of a batch of buffer 'default'"):
            copy.batch(token)
    assert len(scored.batch(token)) == 2
    assert scored.check() == []
