"""A buffer is deleted while processes write to it: they find no buffer, and no row is left."""

import functools
import pathlib
import time

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.forked import Forked
from helpers.polling import until
from sqlbuffer.db import schema
from sqlbuffer.store import open_store

WORKER = """
import pathlib, random, sys
from sqlbuffer import open_store
from sqlbuffer.errors import BufferNotFound

url, kind = sys.argv[1:]
rng = random.Random(kind)
store = open_store(url, name="busy", weighting="uniform")
n = 0

def samples():
    return [f"s{rng.randrange(10_000)}" for _ in range(30)]

def settle():
    batch = store.sample(16)
    try:
        batch.report(batch.ids[:5], [1.0] * len(batch.ids[:5]))
        batch.settle([2.0] * len(batch), metrics={"n": n}, checkpoint={kind: b"state"})
    except BufferNotFound:
        batch._end()  # nothing is left to be released
        raise

acts = {
    "add": [lambda: store.add(samples(), requeue=True)],
    "settle": [settle],
    "record": [lambda: store.record(samples(), [rng.random() for _ in range(30)])],
    "more": [
        lambda: store.log_metrics(n, {"m": n}),
        lambda: store.save_checkpoints({"y": b"1"}, iteration=n),
        lambda: store.save_predictor(b"state", rows_trained=1),
        lambda: store.mark_stale(),
        lambda: store.sample(3).release(),
    ],
}[kind]
rng.choice(acts)()
pathlib.Path(f"{kind} is ready").touch()
try:
    while True:
        n += 1
        rng.choice(acts)()
except BufferNotFound:
    print(n)
    store.close()
"""


@pytest.mark.parametrize("time_s", [0.3, pytest.param(1.0, marks=pytest.mark.soak)])
def test_no_row_is_left_when_a_buffer_is_deleted_under_its_workers(
    store_url: str, tmp_path: pathlib.Path, time_s: float
) -> None:
    with open_store(store_url, name="kept", weighting="uniform") as kept:
        kept.add(["a", "b"])
        with open_store(store_url, name="busy", weighting="uniform") as store:
            store.add([f"s{i}" for i in range(2_000)])
        number = inside.buffer_id(store)
        work = functools.partial(exec, WORKER, {})
        kinds = ("add", "settle", "record", "more")
        workers = [Forked(work, [store_url, kind], tmp_path) for kind in kinds]
        until(lambda: len(list(tmp_path.glob("* is ready"))) == len(kinds))
        time.sleep(time_s)
        store = open_store(store_url, name="busy", create=False)
        began = time.monotonic()
        store.delete(force=True)
        took_s = time.monotonic() - began
        found = [worker.communicate(timeout=60) for worker in workers]
        for (out, err), worker in zip(found, workers, strict=True):
            assert worker.returncode == 0, err
            assert int(out) >= 1, err
            assert "Traceback" not in err
        for name, table in schema.metadata.tables.items():
            column = table.c.get("buffer_id", table.c.get("batch_id", table.c.get("id")))
            of_it = {"draws": sa.true(), "buffers": table.c.get("id") == number}.get(
                name, column == number
            )
            if name not in ("receipts", "lineage"):
                n = sa.select(sa.func.count()).select_from(table).where(of_it)
                assert inside.scalar(kept, n) == 0, name
        assert kept.check() == []
        assert took_s < 5.0, "the deletion waits for no deadlock"
