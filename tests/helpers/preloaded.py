"""Imported once by the server that processes are forked from: what takes seconds to import, or to load."""

# ruff: noqa: F401
import conftest
import molecules
import torch._dynamo

import sqlbuffer.cli.main
import sqlbuffer.retraining.worker
import sqlbuffer.training.environment

molecules.load_molecules()
