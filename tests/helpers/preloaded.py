"""Imported once by the server that processes are forked from: what takes seconds to import, to load
or to compile.
"""

# ruff: noqa: E402, F401
import gc

gc.disable()  # a fifth of the time; what is imported is no garbage

import os
import tempfile
import threading

import torch
import torch._dynamo

import helpers.actions
import helpers.loops
import helpers.random_run
import helpers.searches
import sqlbuffer.cli.worker
import sqlbuffer.loading.stream
import sqlbuffer.retraining.worker
import sqlbuffer.training.environment
from sqlbuffer.core.batch import Batch
from sqlbuffer.store import open_store

helpers.searches.few_molecules()


def compile_statements(url: str) -> None:
    """Let each action compile its statements: a process would take longer for that than for all
    that it does.
    """
    helpers.actions.start(url, "compiled")
    with open_store(url, name="compiled") as store:
        for act in helpers.actions.ACTIONS.values():
            done = act(store)
            if isinstance(done, Batch):
                done.release()
        store.waiting(), store.labelled(), store.stats(), store.history(), store.check()
    environment = helpers.random_run.make_run(url, "loop")
    environment.fit(10, iters=6, report=0)
    environment.buffer.close()


torch.set_num_threads(1)  # more would be threads, and threads are not forked
with tempfile.TemporaryDirectory() as folder:
    compile_statements(f"sqlite:///{folder}/buffer.db")
if url := os.environ.pop("SQLBUFFER_PRELOADED", None):
    compile_statements(url)
assert threading.active_count() == 1
gc.collect()
gc.freeze()  # processes look for garbage among their own objects
gc.enable()
