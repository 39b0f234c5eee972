"""A ring that processes write and draw while they are killed."""

import functools
import pathlib
import random
import time

import pytest

from helpers import polling, rings
from helpers.forked import Forked
from sqlbuffer.integrations.slots import Slots


def test_killed_actors_and_learners_lose_no_sample_and_mix_up_no_rates(
    store_url: str, tmp_path: pathlib.Path
) -> None:
    rng, writes, n_updates = random.Random(1), 0, 0
    watching = Slots(store_url, max_size=rings.SIZE)
    for _ in range(3):
        programs = [functools.partial(program, store_url) for program in (rings.act, rings.learn)]
        running = [Forked(program, [], tmp_path) for program in programs]
        polling.until(lambda: watching.cursor.writes >= writes + 25)  # noqa: B023
        time.sleep(rng.random() / 4)
        said = []
        for process in rng.sample(running, 2):
            process.kill()
        for process in running:
            out, errors = process.communicate(timeout=20)
            assert "Error" not in errors or "empty storage" in errors, errors
            said.append([int(line) for line in out.split()])
        slots = Slots(store_url, max_size=rings.SIZE)
        writes = slots.cursor.writes
        assert writes >= max(said[0], default=0), "what was written before the kill is there"
        n_updates += len(said[1])
        found = slots.read(range(len(slots))).stacked()["at"].tolist()
        assert sorted(found) == list(range(max(0, writes - rings.SIZE), writes))
        assert [at % rings.SIZE for at in found] == list(range(len(found)))
        for at, rate in zip(found, slots.everything()[2].tolist(), strict=True):
            assert rate == 1.0 or (at % 2 and rate == pytest.approx(rings.rate_of(at)))
        assert slots.store.check() == []
        slots.store.close()
    watching.store.close()
    assert n_updates > 3
