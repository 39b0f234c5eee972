"""The old path of `sqlbuffer.samples.hashing`, which stays importable."""

from sqlbuffer.samples.hashing import *  # noqa: F403
