"""The old path of `sqlbuffer.core.race`, which stays importable."""

from sqlbuffer.core.race import *  # noqa: F403
