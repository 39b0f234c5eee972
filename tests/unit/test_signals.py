"""Which exceptions count as those of a signal handler."""

import pytest

from sqlbuffer.core.clock import Blurred
from sqlbuffer.core.weights import DatabaseReverted, Overtaken
from sqlbuffer.db.interruptions import interruption
from sqlbuffer.errors import ClaimLost


@pytest.mark.parametrize("kind", [Blurred, ClaimLost, DatabaseReverted, Overtaken])
def test_an_exception_of_the_package_is_none(kind: type[Exception]) -> None:
    """Each one that counts makes a process open new connections."""
    assert interruption(kind("told"), None) is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError, ValueError])
def test_every_other_one_is(kind: type[BaseException]) -> None:
    error = kind("raised by a handler")
    assert interruption(error, None) is error
