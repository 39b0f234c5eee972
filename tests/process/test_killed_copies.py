"""A process that copies a buffer into another database is killed at any moment, and the copy is
made again.
"""

import contextlib
import os
import pathlib
import signal

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import wait_for_disposal
from helpers.forked import forkserver
from helpers.lives import contents, live
from helpers.recycling import Recycled
from sqlbuffer.db import database
from sqlbuffer.db.schema import buffers
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.maintenance import rows
from sqlbuffer.store import open_store

N_COMMITS = 26
"""COMMITs of the copy below, at least."""


def copy_and_die(url: str, to_url: str, fatal: int) -> None:
    """Copy, and be killed before or after a COMMIT."""
    n_passed = 0

    def come_by(moment: str) -> None:
        nonlocal n_passed
        if n_passed == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        n_passed += 1

    rows.ROWS_AT_ONCE = 17
    with open_store(url) as store:
        database.boundary = come_by
        store.copy(to_url=to_url)


@pytest.mark.parametrize("target", ["postgresql", "sqlite"])
def test_a_killed_copy_is_whole_after_the_next(
    store_url: str, target: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    databases: Recycled = request.getfixturevalue("recycled")
    to_url = f"sqlite:///{tmp_path / 'other.db'}" if target == "sqlite" else databases.take()
    rng = np.random.default_rng()
    with open_store(store_url) as store:
        live(store, 4)
        for fatal in sorted(rng.integers(0, 2 * N_COMMITS, 2).tolist()):
            process = forkserver().Process(target=copy_and_die, args=(store_url, to_url, fatal))
            process.start()
            process.join()
            assert process.exitcode in (0, 1, -signal.SIGKILL), fatal  # 1: it is there already
        with contextlib.suppress(InvalidArgument):
            store.copy(to_url=to_url).close()
        with open_store(to_url) as copied:
            assert contents(copied) == contents(store)
            assert copied.check() == []
            assert inside.scalars(copied, sa.select(buffers.c.name)) == ["default"]
            assert live(copied, 5, 3) == live(store, 5, 3)
    wait_for_disposal()
    if target == "postgresql":
        assert not databases.give_back(to_url)
