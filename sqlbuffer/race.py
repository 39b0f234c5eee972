"""The old path of `sqlbuffer.core.race` and `weighting`, which stays importable."""

from sqlbuffer.core.race import *  # noqa: F403
from sqlbuffer.core.weighting import *  # noqa: F403
