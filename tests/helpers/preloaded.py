"""Imported once by the server that processes are forked from: what takes seconds to import, or to
load.
"""

# ruff: noqa: F401
import molecules
import torch._dynamo

import helpers.actions
import helpers.loops
import helpers.random_run
import sqlbuffer.cli.main
import sqlbuffer.retraining.worker
import sqlbuffer.training.environment

molecules.load_molecules()
